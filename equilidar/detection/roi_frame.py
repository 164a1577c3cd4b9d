"""Boxes in the frame of a region of interest (RoI): its center is the origin, its heading the x axis.

A second stage predicts there how a proposal must move to become the object's box, so that what it has to learn does not
depend on where the proposal is or where it points (Shi et al., PointRCNN, CVPR 2019, section 3.3; OpenPCDet's
RoIHeadTemplate). Residuals are those of `box_coder`, with the RoI as the anchor.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.detection.box_coder import decode_boxes, encode_boxes


def to_roi_frame(boxes: Float[Tensor, "*S 7"], rois: Float[Tensor, "*S 7"]) -> Float[Tensor, "*S 7"]:
    """Return boxes as seen from RoIs, the heading turned by half a turn where the two point apart: in [-pi/2, pi/2]."""
    center = _turned(boxes[..., :3] - rois[..., :3], -rois[..., 6])
    turn = torch.remainder(boxes[..., 6] - rois[..., 6] + math.pi / 2, math.pi) - math.pi / 2
    return torch.cat([center, boxes[..., 3:6], turn[..., None]], -1)


def encode_in_roi(boxes: Float[Tensor, "*S 7"], rois: Float[Tensor, "*S 7"]) -> Float[Tensor, "*S 7"]:
    """Return the residuals that move RoIs onto boxes; sizes must be positive."""
    # In its own frame a RoI lies at the origin and points along x.
    anchors = torch.cat([torch.zeros_like(rois[..., :3]), rois[..., 3:6], torch.zeros_like(rois[..., 6:])], -1)
    return encode_boxes(to_roi_frame(boxes, rois), anchors)


def decode_in_roi(deltas: Float[Tensor, "*S 7"], rois: Float[Tensor, "*S 7"]) -> Float[Tensor, "*S 7"]:
    """Return the boxes that residuals make of RoIs; the inverse of `encode_in_roi`, up to half turns."""
    anchors = torch.cat([torch.zeros_like(rois[..., :3]), rois[..., 3:]], -1)
    local = decode_boxes(deltas, anchors)
    center = _turned(local[..., :3], rois[..., 6]) + rois[..., :3]
    return torch.cat([center, local[..., 3:]], -1)


def _turned(xyz: Tensor, angle: Tensor) -> Tensor:
    """Rotate counter-clockwise about z."""
    x, y, z = xyz.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([x * cos - y * sin, x * sin + y * cos, z], -1)
