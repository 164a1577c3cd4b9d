"""Finetuning a detector: Lightning wiring around detector, augmentation and scorer."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer

from equilidar.augment.labelled import LabelledAugmentation
from equilidar.data.loading import LoadedBatch
from equilidar.detection.detector import Detector
from equilidar.objectives.reduction import any_process
from equilidar.structures import Boxes3D, Detections, LabelledBatch, LossTerms
from equilidar.training.scoring import Score, Scorer
from equilidar.training.step_record import StepOutput, step_output


class FinetuneModule(pl.LightningModule):
    """Trains a detector on labelled batches and scores it by the official figure.

    Args:
        detector: forward, loss, decode.
        augmentation: moves points and boxes of a training batch.
        scorer: of the validation split.
        optimizer: called with the parameters that are trained.
        schedule: called with the optimizer and `total_steps`.
        frozen: keep the backbone as it was handed over: eval mode (running statistics stay) and no gradient.

    Attributes:
        score: of the last validation.
        detections: of the last validation, by sweep key.
    """

    def __init__(
        self,
        detector: Detector,
        augmentation: LabelledAugmentation,
        scorer: Scorer,
        *,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., Any],
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.augmentation, self.scorer = augmentation, scorer
        self._optimizer, self._schedule = optimizer, schedule
        self.frozen = frozen
        self.score: Score | None = None
        self.detections: dict[str, Detections] = {}
        if frozen:
            self._backbone.requires_grad_(False)
            self._backbone.eval()  # Lightning starts from the modes that it finds

    @property
    def _backbone(self) -> nn.Module:
        backbone = self.detector.backbone
        assert isinstance(backbone, nn.Module)
        return backbone

    def train(self, mode: bool = True) -> "FinetuneModule":
        """Set the mode; a frozen backbone stays in eval mode whatever is asked for."""
        super().train(mode)
        if self.frozen:
            self._backbone.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Return optimizer and per-step schedule over the parameters that are trained."""
        optimizer = self._optimizer([p for p in self.parameters() if p.requires_grad])
        schedule = self._schedule(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, loaded: LoadedBatch[LabelledBatch], batch_idx: int) -> StepOutput | None:
        """Return the loss of a batch, or None (in all processes) where a process has no sweep that could be read."""
        batch = loaded.batch
        if any_process(batch is None, self.device) or batch is None:
            return None
        losses = self.loss_terms(self.augmentation(batch))
        return step_output(losses, {"lr": self.trainer.optimizers[0].param_groups[0]["lr"]})

    def loss_terms(self, batch: LabelledBatch) -> LossTerms:
        """Return the loss terms of a batch that has been augmented already."""
        assert not self.frozen or not self._backbone.training
        predictions = self.detector(batch.points)
        with torch.autocast(self.device.type, enabled=False):
            return self.detector.batch_loss(predictions, batch)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation's detections."""
        self.detections = {}

    def validation_step(self, loaded: LoadedBatch[LabelledBatch], batch_idx: int) -> None:
        """Detect in one batch."""
        if loaded.batch is not None:
            found = self.detector.decode(self.detector(loaded.batch.points)).to("cpu")
            self.detections.update(zip(loaded.batch.keys, split_detections(found), strict=True))

    def on_validation_epoch_end(self) -> None:
        """Score the detections of all processes and log the moderate figures."""
        self.detections = _gather(self.detections)
        if self.trainer.sanity_checking:
            return
        self.score = self.scorer(self.detections)
        self.log("val/headline", self.score.headline, prog_bar=True, rank_zero_only=True)
        for name, metrics in self.score.figures.items():
            for metric, values in metrics.items():
                if isinstance(values, dict):
                    moderate = values["AP_R40"][1]
                    self.log(f"val/{name}_{metric}_moderate_R40", moderate, rank_zero_only=True)


def split_detections(found: Detections) -> list[Detections]:
    """Return the detections of each sweep as a batch of one."""
    lengths = found.offsets.diff().tolist()
    parts: list[Boxes3D] = found.boxes.split()
    return [Detections(boxes, scores) for boxes, scores in zip(parts, found.scores.split(lengths), strict=True)]


def _gather(own: dict[str, Detections]) -> dict[str, Detections]:
    """Return the detections of all processes; every sweep was read by exactly one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return own
    parts: list[dict[str, Detections] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {key: value for part in parts if part is not None for key, value in part.items()}
