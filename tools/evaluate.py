"""Evaluate files of detections, or a finetuned detector, by the official protocol.

python tools/evaluate.py evaluator=kitti evaluator.ground_truth=DIR evaluator.detections=DIR output=FILE.json
python tools/evaluate.py checkpoint=runs/.../detector.safetensors dataset=kitti_object dataset.root=DIR
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate, print the figures and write them where `output` says."""
    from equilidar.evaluation.figures import format_table
    from equilidar.training.json_file import write_json

    figures = _figures(cfg)
    if cfg.output is not None:
        write_json(Path(cfg.output), figures)
    print(format_table(figures))


def _figures(cfg: DictConfig) -> dict[str, Any]:
    from hydra.utils import instantiate

    if (cfg.evaluator is None) == (cfg.checkpoint is None):
        raise ValueError(
            "give either evaluator=kitti (files of detections) or checkpoint=FILE dataset=NAME (a detector)"
        )
    if cfg.checkpoint is None:
        return instantiate(cfg.evaluator, _convert_="all")()
    if cfg.dataset is None:
        raise ValueError("checkpoint=... needs dataset=NAME: what should the detector run over?")

    import torch

    from equilidar.checkpoint.detector import read_detector
    from equilidar.training.predict import build_detector, check_input, predict
    from equilidar.training.scoring import scorer_for

    saved = read_detector(cfg.checkpoint)
    parts = instantiate(saved.config, _convert_="all")
    detector = build_detector(saved, parts, cfg.checkpoint)
    dataset = instantiate(cfg.dataset, _convert_="all")
    check_input(saved, dataset)
    scorer = scorer_for(dataset, detector.classes, parts["grid"])
    device = cfg.device if cfg.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    found, faults = predict(detector, dataset, batch_size=cfg.batch_size, num_workers=cfg.num_workers, device=device)
    for fault in faults:
        print(f"not read, so nothing was found there: {fault.key}: {fault.reason}")
    if cfg.detections is not None:
        scorer.write(Path(cfg.detections), found)
    return scorer(found).figures


if __name__ == "__main__":
    main()
