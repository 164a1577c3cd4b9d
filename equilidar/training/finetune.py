"""Finetuning a detector: Lightning wiring around detector, augmentation and scorer."""

from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer

from equilidar.augment.labelled import LabelledAugmentation
from equilidar.data.loading import LoadedBatch
from equilidar.detection.detector import Detector
from equilidar.objectives.reduction import any_process
from equilidar.structures import Detections, LabelledBatch, LossTerms
from equilidar.training.detections import detect, gather_detections, stop_if_not_finite
from equilidar.training.ema import TargetNetwork, WeightAverage, follow
from equilidar.training.parameter_groups import group_rates, parameter_groups, scale_group_rates
from equilidar.training.score import Score, Scorer
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
        backbone_lr: the backbone's learning rate as a multiple of the rest's.
        average: of the weights over the steps; the averaged detector is the one that is evaluated and kept.

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
        backbone_lr: float | int = 1.0,
        average: WeightAverage | None = None,
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
        self._backbone_lr, self._average = backbone_lr, average or WeightAverage()
        self.averaged = TargetNetwork(detector) if self._average.decay else None

    @property
    def evaluated(self) -> Detector:
        """The detector that is evaluated and kept: the averaged one, if weights are averaged."""
        return self.detector if self.averaged is None else cast(Detector, self.averaged.network)

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

    def setup(self, stage: str) -> None:
        """Begin the average with the weights as they are now: the backbone's file is loaded after construction."""
        if self.averaged is not None:
            self.averaged.network.load_state_dict(self.detector.state_dict())

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the average follow; here, so that a checkpoint never lies between the two."""
        stays = self._average.at(self.global_step)
        super().optimizer_step(*args, **kwargs)
        if self.averaged is not None:
            # Every process averages the same weights: gradients are shared, so nothing need be sent.
            follow([(self.detector, self.averaged.network)], stays)

    def configure_optimizers(self) -> Any:
        """Return optimizer and per-step schedule over the parameters that are trained."""
        optimizer = self._optimizer(parameter_groups(self.detector, self._backbone))
        scale_group_rates(optimizer, {"backbone": self._backbone_lr})
        schedule = self._schedule(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, loaded: LoadedBatch[LabelledBatch], batch_idx: int) -> StepOutput | None:
        """Return the loss of a batch, or None (in all processes) where a process has no sweep that could be read."""
        batch = loaded.batch
        if any_process(batch is None, self.device) or batch is None:
            return None
        losses = self.loss_terms(self.augmentation(batch))
        return step_output(losses, group_rates(self.trainer.optimizers[0]))

    def loss_terms(self, batch: LabelledBatch) -> LossTerms:
        """Return the loss terms of a batch that has been augmented already."""
        assert not self.frozen or not self._backbone.training
        predictions = self.detector(batch.points)
        with torch.autocast(self.device.type, enabled=False):
            return self.detector.batch_loss(predictions, batch)

    def terms_of(self, batch: LabelledBatch) -> LossTerms:
        """Return the loss terms of a batch as the loader yields it (see `samples_to_blame`)."""
        return self.loss_terms(self.augmentation(batch))

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation's detections."""
        self.detections = {}

    def validation_step(self, loaded: LoadedBatch[LabelledBatch], batch_idx: int) -> None:
        """Detect in one batch."""
        if loaded.batch is not None:
            self.detections.update(detect(self.evaluated, loaded.batch.points, loaded.batch.keys))

    def on_validation_epoch_end(self) -> None:
        """Score the detections of all processes and log the moderate figures.

        Raises:
            NonFiniteError: the detector's outputs are not finite; in all processes, so that none waits for another.
        """
        self.detections = gather_detections(self.detections)
        stop_if_not_finite(self.detections, self.evaluated)
        if self.trainer.sanity_checking:
            return
        self.score = self.scorer(self.detections)
        self.log("val/headline", self.score.headline, prog_bar=True, rank_zero_only=True)
        for name, value in self.score.logged().items():
            self.log(f"val/{name}", value, rank_zero_only=True)
