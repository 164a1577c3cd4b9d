"""Evaluate files of detections.

python tools/evaluate.py evaluator=kitti evaluator.ground_truth=DIR evaluator.detections=DIR output=FILE.json
"""

import sys

import hydra
from omegaconf import DictConfig, OmegaConf

from equilidar.evaluation.figures import format_table, write_json


@hydra.main(version_base="1.3", config_path="../configs", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluate, print the figures and write them where `output` says."""
    try:
        if missing := OmegaConf.missing_keys(cfg):
            raise ValueError(f"not given: {', '.join(sorted(missing))}")
        figures = hydra.utils.instantiate(cfg.evaluator, _convert_="all")()
        if cfg.output is not None:
            write_json(cfg.output, figures)
    except (ValueError, FileNotFoundError) as error:
        print(f"evaluate: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    print(format_table(figures))


if __name__ == "__main__":
    main()
