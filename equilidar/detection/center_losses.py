"""Losses of a center head: focal on heat maps, L1 on codes (CenterPoint, Yin et al. 2021, section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.detection.center_predictions import BOX_CODES, VELOCITY_CODES, CenterPredictions, class_table
from equilidar.detection.center_targets import CenterTargets
from equilidar.nn.processes import all_processes_sum, num_processes
from equilidar.structures import LossTerms

# OpenPCDet's bounds on a heat map's probability inside the loss.
_CLOSEST = 1e-4


def heatmap_focal_loss(logits: Float[Tensor, "*S"], target: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Return CornerNet's focal loss (Law & Deng 2018, eq. 1, alpha 2, beta 4), elementwise.

    -(1 - p)^2 log p where the target is 1, elsewhere -(1 - target)^4 p^2 log(1 - p); p is kept within 1e-4..1 - 1e-4.
    """
    p = logits.sigmoid().clamp(_CLOSEST, 1 - _CLOSEST)
    at_center = (1 - p) ** 2 * p.log()
    elsewhere = (1 - target) ** 4 * p**2 * (1 - p).log()
    return -torch.where(target == 1, at_center, elsewhere)


@dataclass(frozen=True)
class CenterLoss:
    """CenterPoint's loss; defaults as OpenPCDet's cfgs/nuscenes_models/cbgs_voxel0075_res3d_centerpoint.yaml.

    Each task's sums are divided by its number of centers in the batch, over all processes, so that the mean over the
    shards of a batch is the loss of the batch. A code whose target is not known (a velocity) costs nothing.

    Attributes:
        heatmap, box: weights of the two terms.
        code_weights: of each code in the box term: x, y, z, length, width, height, cosine, sine, and two of velocity
            where the head has it.
    """

    heatmap: float = 1.0
    box: float = 0.25
    code_weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2, 1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.code_weights) not in (BOX_CODES, BOX_CODES + VELOCITY_CODES):
            raise ValueError(
                f"center loss: code_weights must hold {BOX_CODES} numbers, or {BOX_CODES + VELOCITY_CODES} with "
                f"velocity, got {len(self.code_weights)}"
            )
        object.__setattr__(self, "code_weights", tuple(float(weight) for weight in self.code_weights))

    def __call__(self, predictions: CenterPredictions, targets: CenterTargets) -> LossTerms:
        """Return the terms, computed in float32 whatever the autocast state."""
        heatmap, box = self.by_task(predictions, targets)
        return LossTerms(
            {"heatmap": heatmap.sum(), "box": box.sum()},
            {"heatmap": self.heatmap, "box": self.box},
            {"boxes": torch.full((), len(targets.item) / len(targets.heatmap), device=heatmap.device)},
        )

    def by_task(
        self, predictions: CenterPredictions, targets: CenterTargets
    ) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
        """Return the heat map and box terms of each task, unweighted but for `code_weights`."""
        with torch.autocast(predictions.heatmap.device.type, enabled=False):
            return self._heatmap_term(predictions, targets), self._box_term(predictions, targets)

    def _heatmap_term(self, predictions: CenterPredictions, targets: CenterTargets) -> Tensor:
        focal = heatmap_focal_loss(predictions.heatmap.float(), targets.heatmap).sum((0, 2, 3))  # (K,)
        # Cells, not boxes: two boxes of a class in one cell are one center.
        centers = (targets.heatmap == 1).sum((0, 2, 3)).to(focal.dtype)
        task, _ = class_table(predictions.layout, focal.device)
        tasks = len(predictions.layout.tasks)
        return _sum_by_task(focal, task, tasks) * _share(_sum_by_task(centers, task, tasks))

    def _box_term(self, predictions: CenterPredictions, targets: CenterTargets) -> Tensor:
        codes = predictions.codes_at(targets.item, targets.task, targets.cell).float()
        known = targets.codes.isfinite()
        # Replaced before the difference: the gradient of 0 * NaN is NaN.
        error = (codes - torch.where(known, targets.codes, codes.detach())).abs()
        weights = torch.stack([error.new_full((), weight) for weight in self.code_weights])
        per_box = (torch.where(known, error, 0.0) * weights).sum(1)
        tasks = len(predictions.layout.tasks)
        count = _sum_by_task(torch.ones_like(per_box), targets.task, tasks)
        return _sum_by_task(per_box, targets.task, tasks) * _share(count)


def _sum_by_task(values: Float[Tensor, " N"], task: Int64[Tensor, " N"], num_tasks: int) -> Float[Tensor, " T"]:
    """Return sums of few values by task; not by index_add, in which a GPU adds in changing order."""
    own = task == torch.arange(num_tasks, device=task.device)[:, None]
    return torch.where(own, values, 0.0).sum(1)


def _share(count: Tensor) -> Tensor:
    """Return what a local sum is multiplied by, so that its average over processes is the mean over all rows."""
    return num_processes() / all_processes_sum(count).clamp(min=1)
