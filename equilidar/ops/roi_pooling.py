"""Pooling of features at a grid of points within each region of interest (RoI), for a detector's second stage.

points = roi_grid_points(rois)                      # (R, 216, 3)
neighbors = ...                                     # rows of voxels or keypoints near each grid point, -1 for none
pooled = neighbor_max(features, neighbors)          # (R * 216, C)
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.ops._registration import define_op


def roi_grid_points(rois: Float[Tensor, "R 7"], grid_size: int = 6) -> Float[Tensor, "R G 3"]:
    """Return the centers of grid_size^3 equal cells of each box.

    PV-RCNN (Shi et al. 2020, section 3.3) and Voxel R-CNN (Deng et al. 2021, section 3.3) pool there, with 6 x 6 x 6.
    The order is theirs: along the length slowest, then the width, along the height fastest. Differentiable.

    Args:
        rois: x, y, z of the center, length, width, height, yaw.
        grid_size: cells along each axis of a box.

    Raises:
        ValueError: the grid size is not positive.
    """
    if grid_size < 1:
        raise ValueError(f"grid_size must be at least 1, got {grid_size}")
    steps = (torch.arange(grid_size, dtype=rois.dtype, device=rois.device) + 0.5) / grid_size - 0.5
    unit = torch.cartesian_prod(steps, steps, steps).view(-1, 3)
    along, across, up = (unit * rois[:, None, 3:6]).unbind(-1)
    cos, sin = rois[:, 6, None].cos(), rois[:, 6, None].sin()
    return rois[:, None, :3] + torch.stack([along * cos - across * sin, along * sin + across * cos, up], -1)


def neighbor_max(features: Float[Tensor, "M C"], rows: Int64[Tensor, "N K"]) -> Float[Tensor, "N C"]:
    """Take the maximum of each channel over given neighbours, without holding the (N, K, C) that were gathered.

    Differentiable with respect to the features: the gradient goes to the neighbour that holds the maximum, of equal
    ones to the first.

    Args:
        features: of voxels or keypoints.
        rows: neighbours of each query, as rows of the features; what is below 0 or beyond the last row is none (ball
            and voxel queries pad with -1).

    Returns:
        Maxima; 0 where a query has no neighbour.
    """
    return _neighbor_max(features, rows)[0]


def _neighbor_max_reference(features: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return maxima (N, C) and the rows of the features that hold them (N, C), -1 for none."""
    if rows.shape[1] == 0 or len(features) == 0:
        shape = len(rows), features.shape[1]
        return features.new_zeros(shape), rows.new_full(shape, -1)
    none = ((rows < 0) | (rows >= len(features)))[..., None]
    values = features[rows.clamp(0, len(features) - 1)].masked_fill(none, -torch.inf)
    maximum = values.amax(1)
    # argmax of booleans is the first true one; amax is not a number if one value is.
    first = (((values == maximum[:, None]) | values.isnan()) & ~none).to(torch.uint8).argmax(1)
    found = ~none.all(1)
    return torch.where(found, maximum, 0.0), torch.where(found, rows.gather(1, first), -1)


def _neighbor_max_backward_reference(grad: Tensor, argument: Tensor, num_features: int) -> Tensor:
    # One more row takes what belongs to no feature.
    grad_features = grad.new_zeros(num_features + 1, grad.shape[1])
    target = torch.where(argument < 0, num_features, argument)
    return grad_features.scatter_add_(0, target, grad)[:num_features].clone()


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.num_features = inputs[0].shape[0]


def _backward(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor, None]:
    (argument,) = ctx.saved_tensors
    return _neighbor_max_backward(grad, argument, ctx.num_features), None


_neighbor_max = define_op(
    "neighbor_max(Tensor features, Tensor rows) -> (Tensor, Tensor)",
    reference=_neighbor_max_reference,
    fake=lambda features, rows: (
        features.new_empty(rows.shape[0], features.shape[1]),
        rows.new_empty(rows.shape[0], features.shape[1]),
    ),
    setup_context=_setup,
    backward=_backward,
    autocast="float32",
)
_neighbor_max_backward = define_op(
    "neighbor_max_backward(Tensor grad, Tensor argument, SymInt num_features) -> Tensor",
    reference=_neighbor_max_backward_reference,
    fake=lambda grad, argument, num_features: grad.new_empty(num_features, grad.shape[1]),
)
