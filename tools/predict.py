"""Find objects in files of points, folders, packed stores, logs or data sets; see docs/handoff.md.

python tools/predict.py checkpoint=detector.safetensors input=DIR output=found [format=kitti calibration=DIR]
python tools/predict.py checkpoint=detector.safetensors dataset=NAME dataset.root=DIR output=found [format=nuscenes]
"""

from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("predict")
def main(cfg: DictConfig) -> None:
    """Write detections and pictures sweep by sweep."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from equilidar.checkpoint.detector import read_detector
    from equilidar.data.sweep_sources import DatasetSweeps
    from equilidar.training.predict_stream import Output, open_source, predict_stream
    from equilidar.training.saved_detector import build_detector, check_points

    if (cfg.input is None) == (cfg.dataset is None):
        raise ValueError("give either input=PATH (files, a folder, a packed store, a log) or dataset=NAME")
    style = {name: cfg[name] for name in ("format", "calibration", "pictures", "min_score", "overwrite")}
    output = Output(Path(cfg.output), **style)
    saved = read_detector(cfg.checkpoint)
    if cfg.dataset is None:
        reading = cast("dict[str, Any]", OmegaConf.to_container(cfg.reading, resolve=True))
        about = {"input": str(Path(cfg.input).resolve()), "reading": reading}
        source = open_source(saved, Path(cfg.input), reading)
    else:
        about = {"dataset": OmegaConf.to_container(cfg.dataset, resolve=True)}
        source = DatasetSweeps(instantiate(cfg.dataset, _convert_="all"))
        check_points(saved, source.contract)
    parts = instantiate(saved.config, _convert_="all")
    detector = build_detector(saved, parts, cfg.checkpoint)
    output = output.within(parts["grid"], cfg.radius)
    sizes = {name: cfg[name] for name in ("batch_size", "num_workers", "device")}
    is_guessed = cfg.dataset is None and cfg.reading.scales is None
    summary = predict_stream(saved, detector, source, output, about=about, look_at_intensity=is_guessed, **sizes)
    print(f"{output.folder}: {summary}")


if __name__ == "__main__":
    main()
