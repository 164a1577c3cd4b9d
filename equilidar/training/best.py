"""Keeps the detector of the best validation, with its figures, detections and pictures."""

import logging
import math
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from equilidar.data.protocols import LabelledDataset
from equilidar.report.detection_pictures import detections_picture
from equilidar.report.pictures import save_picture
from equilidar.report.score_jitter import measure_jitter
from equilidar.structures import Boxes3D, Detections
from equilidar.training.detections import split_detections
from equilidar.training.finetune import FinetuneModule
from equilidar.training.json_file import write_json
from equilidar.training.run_directory import RunDirectory
from equilidar.training.score import Scorer

_LOG = logging.getLogger(__name__)


class KeepBest(pl.Callback):
    """Saves whenever the headline figure rises: detector.safetensors, metrics.json, best.json, detections/, pictures/.

    Args:
        run: the run directory.
        save: writes the detector to the given file.
        validation: where pictures come from.
        num_pictures: sweeps to draw, spread over the validation set.

    Attributes:
        best: the highest headline so far.
        best_step: optimizer step at which it was reached, -1 before the first validation.
    """

    def __init__(
        self, run: RunDirectory, save: Callable[[Path], object], validation: LabelledDataset, num_pictures: int = 4
    ) -> None:
        self._run, self._save, self._validation, self._num_pictures = run, save, validation, num_pictures
        self.best, self.best_step = -math.inf, -1
        self._found: dict[str, Detections] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if this was the best validation so far."""
        assert isinstance(pl_module, FinetuneModule)
        score = pl_module.score
        if trainer.sanity_checking or score is None or score.headline <= self.best:
            return
        self.best, self.best_step, self._found = score.headline, trainer.global_step, pl_module.detections
        if not trainer.is_global_zero:
            return
        self._save(self._run.path / "detector.safetensors")
        folder = self._run.path / "detections"
        shutil.rmtree(folder, ignore_errors=True)
        pl_module.scorer.write(folder, pl_module.detections)
        self._draw(pl_module)
        write_json(self._run.path / "metrics.json", score.figures)
        chosen = {"step": self.best_step, "epoch": trainer.current_epoch, "headline": self.best, "figure": score.name}
        write_json(self._run.path / "best.json", chosen)
        _LOG.info("best validation so far: %s %.2f at step %d", score.name, self.best, self.best_step)

    def measure_jitter(self, scorer: Scorer) -> None:
        """Write score_jitter.json: how far the best detector's figures move with slightly other scores.

        Called once, after training, where the protocol has the cliff of R11: it takes eleven evaluations, half a
        minute for KITTI's validation split.
        """
        if self._found and self._run.is_main and scorer.has_cliff:
            jitter = measure_jitter(lambda found: scorer(found).figures, self._found)
            write_json(self._run.path / "score_jitter.json", jitter)

    def _draw(self, module: FinetuneModule) -> None:
        number = len(self._validation)
        step = max(1, number // max(self._num_pictures, 1))
        for index in range(0, min(number, step * self._num_pictures), step):
            key = self._validation.keys[index]
            if key not in module.detections:  # it could not be read
                continue
            item = self._validation[index]
            # Objects outside the grid are none that the detector misses.
            grid = module.detector.backbone.grid
            asked = item.boxes.select(grid.contains(item.boxes.center))
            radius = max(40.0, grid.reach)
            figure = detections_picture(item.sweep.xyz, asked, module.detections[key], title=key, radius=radius)
            save_picture(figure, self._run.path / "pictures" / f"{key.replace('/', '_')}.png")

    def state_dict(self) -> dict[str, Any]:
        """Return the best figure so far and its detections, as tensors and plain values."""
        return {"best": self.best, "best_step": self.best_step, "found": _as_state(self._found)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
        self._found = _from_state(state_dict["found"])


def _as_state(found: dict[str, Detections]) -> dict[str, Any]:
    if not found:
        return {}
    boxes = Boxes3D.collate([item.boxes for item in found.values()])
    columns = {field.name: getattr(boxes, field.name) for field in fields(boxes)}
    return {"keys": list(found), "boxes": columns, "scores": torch.cat([item.scores for item in found.values()])}


def _from_state(state: dict[str, Any]) -> dict[str, Detections]:
    if not state:
        return {}
    items = split_detections(Detections(Boxes3D(**state["boxes"]), state["scores"]))
    return dict(zip(state["keys"], items, strict=True))
