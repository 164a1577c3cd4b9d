"""Pack a dataset into memory-mapped sweeps, once, for every run after.

python tools/prepare.py dataset=kitti_raw dataset.root=/data/kitti_raw output=/data/packed/kitti_raw [dry_run=true]
python tools/pretrain.py dataset=packed dataset.root=/data/packed/kitti_raw ...
"""

import shlex
from pathlib import Path

from omegaconf import DictConfig

from equilidar.training.cli import entry_point

_NOT_REPEATED = ("overwrite=", "verify=", "dry_run=")


@entry_point("prepare")
def main(cfg: DictConfig) -> None:
    """Say what it will take, then pack; what was packed before stays."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from equilidar.data.packing import Packing

    overrides = [text for text in HydraConfig.get().overrides.task if not text.startswith(_NOT_REPEATED)]
    packing = Packing(
        instantiate(cfg.dataset, _convert_="all"),
        Path(cfg.output),
        shlex.join(["python", "tools/prepare.py", *overrides]),
        num_workers=cfg.num_workers,
        max_memory_gb=cfg.max_memory_gb,
        sweeps_per_file=cfg.sweeps_per_file,
        faults=instantiate(cfg.faults),
        overwrite=cfg.overwrite,
        verify=cfg.verify,
    )
    if packing.is_finished:
        print(f"{cfg.output} is finished: {packing.finished().summary()}; nothing to do")
        return
    estimate = packing.estimate()
    print(packing.describe(estimate))
    if cfg.dry_run:
        return
    packing.check_space(estimate)
    print(f"{cfg.output} is finished: {packing.run(estimate.num_workers).summary()}")


if __name__ == "__main__":
    main()
