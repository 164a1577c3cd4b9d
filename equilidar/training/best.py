"""Keeps the detector of the best validation, with its figures and detections."""

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from equilidar.training.finetune import FinetuneModule
from equilidar.training.json_file import write_json
from equilidar.training.run_directory import RunDirectory

_LOG = logging.getLogger(__name__)


class KeepBest(pl.Callback):
    """Saves whenever the headline figure rises: detector.safetensors, metrics.json and detections/.

    Args:
        run: the run directory.
        save: writes the detector to the given file.
        summary: plain values that metrics.json holds beside the figures.

    Attributes:
        best: the highest headline so far.
        best_step: optimizer step at which it was reached, -1 before the first validation.
    """

    def __init__(
        self, run: RunDirectory, save: Callable[[Path], object], summary: dict[str, Any] | None = None
    ) -> None:
        self._run, self._save, self._summary = run, save, summary or {}
        self.best, self.best_step = -math.inf, -1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if this was the best validation so far."""
        assert isinstance(pl_module, FinetuneModule)
        score = pl_module.score
        if trainer.sanity_checking or score is None or score.headline <= self.best:
            return
        self.best, self.best_step = score.headline, trainer.global_step
        if not trainer.is_global_zero:
            return
        self._save(self._run.path / "detector.safetensors")
        folder = self._run.path / "detections"
        shutil.rmtree(folder, ignore_errors=True)
        pl_module.scorer.write(folder, pl_module.detections)
        chosen = {"step": self.best_step, "epoch": trainer.current_epoch, "headline": self.best}
        write_json(self._run.path / "metrics.json", {"figures": score.figures, "best": chosen, **self._summary})
        _LOG.info("best validation so far: %.2f at step %d", self.best, self.best_step)

    def state_dict(self) -> dict[str, Any]:
        """Return the best figure so far."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from it."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]
