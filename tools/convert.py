"""Convert checkpoints from and to OpenPCDet's, and from mmdetection3d's and det3d's backbones; see docs/handoff.md.

python tools/convert.py input=second.pth source=openpcdet output=backbone.safetensors [grid=kitti backbone=voxel_plain]
python tools/convert.py input=second.pth source=openpcdet detector=second output=detector.safetensors
python tools/convert.py input=detector.safetensors source=equilidar output=second.pth [part=backbone]
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("convert")
def main(cfg: DictConfig) -> None:
    """Read, print what became of each tensor, write."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from torch import manual_seed

    from equilidar.checkpoint.detector import SavedDetector
    from equilidar.checkpoint.foreign_file import read_foreign
    from equilidar.checkpoint.identity import contract_from
    from equilidar.checkpoint.importing import ImportSettings
    from equilidar.training import conversion

    target = cfg.target or ("openpcdet" if cfg.source == conversion.OURS else conversion.OURS)
    output = Path(cfg.output)
    conversion.check_request(cfg.source, target, cfg.part, Path(cfg.input), output)
    if cfg.source == conversion.OURS:
        saved = conversion.read_ours(cfg.input)
        parts = instantiate(saved.config, _convert_="all") if isinstance(saved, SavedDetector) else {}
        handed = conversion.rebuild(saved, parts, cfg.input)
    else:
        plain = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
        settings = ImportSettings(**{field.name: plain[field.name] for field in fields(ImportSettings)})
        contract = contract_from(plain["contract"])
        file = read_foreign(cfg.input, cfg.state)
        manual_seed(cfg.seed)
        config = {name: plain[name] for name in ("grid", "backbone", "detector")}
        parts = instantiate(config, _convert_="all")
        handed = conversion.build(parts, contract, config, cfg.class_names)
        handed = conversion.import_network(file, cfg.source, handed, settings)
    if cfg.part == "backbone":
        handed = handed.only_backbone()
    conversion.write_network(handed, output, target, cfg.output_layout)
    print(f"{output}: {type(handed.network).__name__} for {target}")


if __name__ == "__main__":
    main()
