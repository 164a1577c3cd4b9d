"""Evaluate files of detections by the official protocol.

python tools/evaluate.py evaluator=kitti evaluator.ground_truth=DIR evaluator.detections=DIR output=FILE.json
"""

from pathlib import Path

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate, print the figures and write them where `output` says."""
    from hydra.utils import instantiate

    from equilidar.evaluation.figures import format_table
    from equilidar.training.atomic_write import write_json

    figures = instantiate(cfg.evaluator, _convert_="all")()
    if cfg.output is not None:
        write_json(Path(cfg.output), figures)
    print(format_table(figures))


if __name__ == "__main__":
    main()
