"""Evaluate files of detections, or a finetuned detector, by the official protocol; check=true only looks at the files.

python tools/evaluate.py evaluator=NAME evaluator.ground_truth=PATH evaluator.detections=PATH output=FILE.json
python tools/evaluate.py checkpoint=runs/.../detector.safetensors dataset=kitti_object dataset.root=DIR
NAME: kitti, nuscenes, waymo, argoverse2, scene_flow
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate, print the figures and write them where `output` says."""
    from hydra.utils import instantiate

    from equilidar.evaluation.figures import format_table

    if (cfg.evaluator is None) == (cfg.checkpoint is None):
        raise ValueError(
            "give either evaluator=NAME (files of detections) or checkpoint=FILE dataset=NAME (a detector)"
        )
    if cfg.check and cfg.evaluator is None:
        raise ValueError("check=true looks at files: give evaluator=NAME")
    evaluator = instantiate(cfg.evaluator, _convert_="all")
    if cfg.check:
        print("\n".join([*evaluator.check(), "ok"]))
        return
    figures = _run_detector(cfg) if evaluator is None else evaluator.evaluate()
    if cfg.output is not None:
        from equilidar.training.json_file import write_json

        write_json(Path(cfg.output), figures)
    print(format_table(figures) if evaluator is None else evaluator.table(figures))


def _run_detector(cfg: DictConfig) -> dict[str, Any]:
    from hydra.utils import instantiate

    from equilidar.checkpoint.detector import read_detector
    from equilidar.training.predict import score
    from equilidar.training.saved_detector import build_detector

    if cfg.dataset is None:
        raise ValueError("checkpoint=... needs dataset=NAME: what should the detector run over?")
    saved = read_detector(cfg.checkpoint)
    parts = instantiate(saved.config, _convert_="all")
    detector = build_detector(saved, parts, cfg.checkpoint)
    dataset = instantiate(cfg.dataset, _convert_="all")
    sizes = {key: cfg[key] for key in ("batch_size", "num_workers", "device")}
    return score(saved, detector, dataset, parts["grid"], write_to=cfg.detections, **sizes)


if __name__ == "__main__":
    main()
