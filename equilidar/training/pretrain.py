"""The pretraining step. It names no objective: which views are encoded follows from what the objective reads."""

import time
from collections.abc import Callable
from pathlib import Path
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
from equilidar.objectives.reduction import all_processes_sum
from equilidar.structures import LossTerms, PairFeatures, SweepPairBatch, ViewPair
from equilidar.training.ema import Momentum, TargetNetwork, follow
from equilidar.training.encoding import encode_views
from equilidar.training.guards import stop_if_not_finite


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

    def training_step(self, loaded: LoadedBatch[SweepPairBatch], batch_idx: int) -> Tensor | None:
        """Return the loss of a batch, or None (in all processes) where a process has no sample that could be read."""
        batch = loaded.batch
        if bool(all_processes_sum(torch.tensor(float(batch is None), device=self.device)) > 0) or batch is None:
            return None
        pair = self.encode(batch)
        with torch.autocast(self.device.type, enabled=False):
            losses = self.objective(pair)
            total = losses.total()
        folder = Path(self.trainer.default_root_dir)
        stop_if_not_finite({**losses.terms, "loss": total}, batch, batch.keys, self.global_step, folder)
        self._log_step(losses, total, pair.views)
        if self._monitor_every and self.global_step % self._monitor_every == 0:
            self._log_monitor(losses, pair)
        return total

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

    def _log_step(self, losses: LossTerms, total: Tensor, views: ViewPair) -> None:
        points = torch.tensor([len(views.a.points.xyz), len(views.matches)], device=self.device, dtype=torch.float32)
        shown, paired = all_processes_sum(points)
        values: dict[str, Any] = {**losses.terms, **losses.metrics, "views/paired": paired / shown.clamp(min=1)}
        now = time.perf_counter()
        if self._last_step_at is not None:
            values["pairs_per_second"] = views.batch_size * self.trainer.world_size / (now - self._last_step_at)
        self._last_step_at = now
        values["lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        # Means over processes are means over all rows: see `equilidar.objectives.reduction`.
        self.log_dict(values, batch_size=views.batch_size, sync_dist=True)
        self.log("loss", total, batch_size=views.batch_size, sync_dist=True, prog_bar=True)

    def _log_monitor(self, losses: LossTerms, pair: PairFeatures) -> None:
        weighted = {name: term * losses.weights[name] for name, term in losses.terms.items()}
        norms = gradient_norms(weighted, cast(nn.Module, self.backbone).parameters())
        values: dict[str, Any] = {f"gradient/{name}": norm for name, norm in norms.items()}
        for name, embedding in self.objective.embeddings(pair).items():
            seen = self._monitor(embedding)
            values |= {f"{name}/std": seen.std, f"{name}/lowest_std": seen.lowest_std, f"{name}/rank": seen.rank}
            if seen.collapsed:
                self.print(f"step {self.global_step}: {name}: {'; '.join(seen.reasons)}")
        # Not by `log_dict`, which would repeat them in every row until the next look. In a distributed run these are
        # the first process's.
        for logger in self.loggers:
            logger.log_metrics({name: float(value) for name, value in values.items()}, self.global_step)
