"""1x1 convolutions that act on rows: the shared layers of PointNets, with weights shaped as the field stores them.

OpenPCDet writes a layer that is shared by all points as a convolution with kernel 1 over (1, C, points) or
(1, C, points, neighbours). Here rows of channels go in and come out, without transposing; the state dict is the same.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PointwiseConv1d(nn.Conv1d):
    """A linear layer on rows, its weight (out, in, 1)."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows D"]:
        return F.linear(input, self.matrix, self.bias)

    @property
    def matrix(self) -> Float[Tensor, "D C"]:
        return self.weight.flatten(1)


class PointwiseConv2d(nn.Conv2d):
    """A linear layer on rows, its weight (out, in, 1, 1)."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = False) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Float[Tensor, "*rows C"]) -> Float[Tensor, "*rows D"]:
        return F.linear(input, self.matrix, self.bias)

    @property
    def matrix(self) -> Float[Tensor, "D C"]:
        return self.weight.flatten(1)
