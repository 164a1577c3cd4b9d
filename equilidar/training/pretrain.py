"""The pretraining step. It names no objective: which views are encoded follows from what the objective reads."""

import time
from collections.abc import Callable
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from equilidar.augment.pipeline import ViewPipeline
from equilidar.backbones.feature_info import Backbone
from equilidar.data.loading import LoadedBatch
from equilidar.flow import FlowEstimator
from equilidar.objectives.monitor import CollapseMonitor, gradient_norms
from equilidar.objectives.protocol import Objective
from equilidar.objectives.reduction import all_processes_sum, any_process
from equilidar.structures import LossTerms, PairFeatures, SweepPairBatch, ViewPair
from equilidar.structures.host_sync import allowed_sync, constants
from equilidar.training.ema import Momentum, TargetNetwork, follow
from equilidar.training.encoding import encode_views
from equilidar.training.step_record import StepOutput, step_output


class PretrainModule(pl.LightningModule):
    """batch -> flow -> views -> features -> objective -> loss.

    Args:
        backbone: the network that is taught.
        objective: one, or a `CompositeObjective`.
        pipeline: makes views on the training device.
        flow: asked only if the objective reads the source sweep.
        optimizer: called with the parameters.
        schedule: called with the optimizer and `total_steps`.
        momentum: of the target network.
        monitor_every: steps between looks at collapse and at each term's gradient; 0 for none.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        pipeline: ViewPipeline,
        flow: FlowEstimator,
        *,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., Any],
        momentum: Momentum,
        monitor_every: int = 50,
    ) -> None:
        super().__init__()
        self.backbone, self.objective = backbone, objective
        self.reads_source = "source" in objective.reads
        self.target = TargetNetwork(cast(nn.Module, backbone)) if self.reads_source else None
        self._pipeline, self._flow = pipeline, flow
        self._optimizer, self._schedule, self._momentum = optimizer, schedule, momentum
        self._monitor, self._monitor_every = CollapseMonitor(), monitor_every
        self._last_step_at: float | None = None

    def training_step(self, loaded: LoadedBatch[SweepPairBatch], batch_idx: int) -> StepOutput | None:
        """Return the loss of a batch, or None (in all processes) where a process has no sample that could be read."""
        batch = loaded.batch
        if any_process(batch is None, self.device) or batch is None:
            return None
        pair = self.encode(batch)
        losses = self._losses(pair)
        values = self._values(pair.views)
        if self._monitor_every and self.global_step % self._monitor_every == 0:
            values |= self._look(losses, pair)
        return step_output(losses, values)

    def terms_of(self, batch: SweepPairBatch) -> LossTerms:
        """Return the loss terms of a batch as the loader yields it (see `samples_to_blame`)."""
        return self._losses(self.encode(batch))

    def _losses(self, pair: PairFeatures) -> LossTerms:
        with torch.autocast(self.device.type, enabled=False):
            return self.objective(pair)

    def encode(self, batch: SweepPairBatch) -> PairFeatures:
        """Make the views of a batch and encode them."""
        flow = self._flow(batch) if self.reads_source else None
        target = None if self.target is None else cast(Backbone, self.target.network)
        return encode_views(self._pipeline(batch, flow), self.backbone, target)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then let the target networks follow; here, so that a checkpoint never lies between the two."""
        momentum = self._momentum.at(self.global_step, int(self.trainer.estimated_stepping_batches))
        super().optimizer_step(*args, **kwargs)
        encoders = [] if self.target is None else [(cast(nn.Module, self.backbone), self.target.network)]
        follow([*encoders, *self.objective.ema_pairs()], momentum)

    def configure_optimizers(self) -> dict[str, Any]:
        """Build optimizer and schedule over what is trained."""
        optimizer = self._optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        schedule = self._schedule(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _values(self, views: ViewPair) -> dict[str, Tensor | float]:
        points = constants([len(views.a.points.xyz), len(views.matches)], device=self.device, dtype=torch.float32)
        shown, paired = all_processes_sum(points)
        values: dict[str, Tensor | float] = {"views/paired": paired / shown.clamp(min=1)}
        now = time.perf_counter()
        if self._last_step_at is not None:
            values["pairs_per_second"] = views.batch_size * self.trainer.world_size / (now - self._last_step_at)
        self._last_step_at = now
        values["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        return values

    def _look(self, losses: LossTerms, pair: PairFeatures) -> dict[str, float]:
        """Look at collapse and at each term's gradient; in a distributed run, at the first process's."""
        weighted = {name: term * losses.weights[name] for name, term in losses.terms.items()}
        norms = gradient_norms(weighted, cast(nn.Module, self.backbone).parameters())
        embeddings = self.objective.embeddings(pair)
        with allowed_sync("a look, every so many steps"):
            values = {f"gradient/{name}": float(norm) for name, norm in norms.items()}
            looks = {name: self._monitor(embedding) for name, embedding in embeddings.items()}
        for name, seen in looks.items():
            values |= {f"{name}/std": seen.std, f"{name}/lowest_std": seen.lowest_std, f"{name}/rank": seen.rank}
            if seen.collapsed:
                self.print(f"step {self.global_step}: {name}: {'; '.join(seen.reasons)}")
        return values
