"""Boxes as residuals to anchors (SECOND, Yan et al. 2018, section 3.2.1; OpenPCDet's ResidualCoder).

Boxes and anchors are x, y, z (center), length, width, height, yaw; d = sqrt(length^2 + width^2) of the anchor:

    t_x, t_y = (x - x_a) / d, (y - y_a) / d      t_z = (z - z_a) / height_a
    t_l, t_w, t_h = log(size / size_a)           t_yaw = yaw - yaw_a (not wrapped: the loss takes its sine)
"""

import torch
from jaxtyping import Float
from torch import Tensor


def encode_boxes(boxes: Float[Tensor, "*S 7"], anchors: Float[Tensor, "*S 7"]) -> Float[Tensor, "*S 7"]:
    """Return the residuals of boxes to anchors; sizes must be positive."""
    scale = _center_scale(anchors)
    center = (boxes[..., :3] - anchors[..., :3]) / scale
    size = torch.log(boxes[..., 3:6] / anchors[..., 3:6])
    return torch.cat([center, size, boxes[..., 6:] - anchors[..., 6:]], -1)


def decode_boxes(deltas: Float[Tensor, "*S 7"], anchors: Float[Tensor, "*#S 7"]) -> Float[Tensor, "*S 7"]:
    """Return the boxes of residuals; the inverse of `encode_boxes`."""
    center = deltas[..., :3] * _center_scale(anchors) + anchors[..., :3]
    size = torch.exp(deltas[..., 3:6]) * anchors[..., 3:6]
    return torch.cat([center, size, deltas[..., 6:] + anchors[..., 6:]], -1)


def _center_scale(anchors: Tensor) -> Tensor:
    diagonal = torch.sqrt(anchors[..., 3:4] ** 2 + anchors[..., 4:5] ** 2)
    return torch.cat([diagonal, diagonal, anchors[..., 5:6]], -1)
