"""Finetuning a detector: Lightning wiring around detector, augmentation and scorer."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from equilidar.augment.labelled import LabelledAugmentation
from equilidar.data.faults import FaultBudget
from equilidar.data.loading import LoadedBatch
from equilidar.detection.second import SECOND
from equilidar.structures import Boxes3D, Detections, LabelledBatch, LossTerms
from equilidar.training.scoring import Score, Scorer

_LOG = logging.getLogger(__name__)

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
ScheduleFactory = Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]


class FinetuneModule(pl.LightningModule):
    """Trains a detector on labelled batches and scores it by the official figure.

    Args:
        detector: forward, loss, decode.
        augmentation: moves points and boxes of a training batch.
        scorer: of the validation split.
        optimizer: called with the parameters that are trained.
        schedule: called with the optimizer and the number of steps.
        frozen: keep the backbone as it was handed over: eval mode (running statistics stay) and no gradient.
        faults: how many sweeps may be faulty.

    Attributes:
        score: of the last validation.
        detections: of the last validation, by sweep key.
    """

    def __init__(
        self,
        detector: SECOND,
        augmentation: LabelledAugmentation,
        scorer: Scorer,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory,
        *,
        frozen: bool = False,
        faults: FaultBudget | None = None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.augmentation, self.scorer = augmentation, scorer
        self._optimizer, self._schedule = optimizer, schedule
        self.frozen = frozen
        self.faults = faults or FaultBudget()
        self.score: Score | None = None
        self.detections: dict[str, Detections] = {}
        if frozen:
            self._backbone.requires_grad_(False)

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
        schedule = self._schedule(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, loaded: LoadedBatch[LabelledBatch], batch_index: int) -> Tensor | None:
        """Return the loss of one batch, None if none of its sweeps could be read."""
        self._observe(loaded)
        if loaded.batch is None:
            return None
        assert not self.frozen or not self._backbone.training
        batch = self.augmentation(loaded.batch)
        terms = self.loss_terms(batch)
        total = terms.total()
        values = {f"train/{name}": value.detach() for name, value in {**terms.terms, "loss": total}.items()}
        self.log_dict(values, batch_size=batch.batch_size)
        self.log("train/loss_now", total.detach(), batch_size=batch.batch_size, prog_bar=True, logger=False)
        return total

    def loss_terms(self, batch: LabelledBatch) -> LossTerms:
        """Return the loss terms of a batch that has been augmented already."""
        return self.detector.loss(self.detector(batch.points), batch.boxes, batch.keys)

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation's detections."""
        self.detections = {}

    def validation_step(self, loaded: LoadedBatch[LabelledBatch], batch_index: int) -> None:
        """Detect in one batch."""
        self._observe(loaded)
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

    def _observe(self, loaded: LoadedBatch[LabelledBatch]) -> None:
        for fault in self.faults.observe(loaded.num_seen, loaded.faults):
            _LOG.warning("skipped %s: %s", fault.key, fault.reason)


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
