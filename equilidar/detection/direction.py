"""Headings as anchors see them: an angle up to half a turn, and which half it is.

A box looks the same turned by 180 degrees, so the box loss compares headings up to pi and a two-way classifier says
which half turn holds. The halves are cut at 0.78539 rad (OpenPCDet's `dir_offset`, cfgs/kitti_models/second.yaml),
away from the headings along and across the road.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

DIRECTION_OFFSET = 0.78539
NUM_DIRECTIONS = 2


def limit_period(angle: Float[Tensor, "*S"], offset: float, period: float) -> Float[Tensor, "*S"]:
    """Shift by whole periods into [-offset * period, (1 - offset) * period)."""
    return angle - torch.floor(angle / period + offset) * period


def direction_of(yaw: Float[Tensor, "*S"]) -> Int64[Tensor, "*S"]:
    """Return 0 where the heading is within half a turn counter-clockwise of the offset, else 1."""
    turned = limit_period(yaw - DIRECTION_OFFSET, 0.0, 2 * math.pi)
    return torch.floor(turned / math.pi).long().clamp(0, NUM_DIRECTIONS - 1)


def with_direction(yaw: Float[Tensor, "*S"], direction: Int64[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Turn a heading known up to pi into the half turn given, result in [offset, offset + 2 pi)."""
    half_turn = limit_period(yaw - DIRECTION_OFFSET, 0.0, math.pi)
    return half_turn + DIRECTION_OFFSET + math.pi * direction.to(yaw.dtype)
