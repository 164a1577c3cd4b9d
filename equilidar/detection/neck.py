"""The dense 2D network between a backbone and an anchor head."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from equilidar.nn.norm import BatchNorm2d
from equilidar.structures import BEVMap


class BEVNeck(nn.Module):
    """Region proposal network of SECOND (Yan et al. 2018, section 3.1.3), as OpenPCDet's BaseBEVBackbone.

    Block i is a 3x3 convolution with stride `strides[i]` and `layers[i]` more with stride 1; what each block gives is
    brought to one size by a transposed convolution and concatenated.

    Args:
        in_channels: channels of the backbone's map.
        in_shape: (y, x) cells of that map.
        layers: number of 3x3 convolutions of each block after its first.
        strides: stride of each block's first convolution.
        channels: width of each block.
        up_strides: factor by which each block's output is enlarged.
        up_channels: width of each enlarged output.
        norm_momentum: weight of a new batch in the running statistics.

    Attributes:
        out_channels: channels of the result.
        out_shape: (y, x) cells of the result.

    Raises:
        ValueError: the lists differ in length, or the blocks' outputs would differ in size on such a map.
    """

    def __init__(
        self,
        in_channels: int,
        in_shape: tuple[int, int],
        *,
        layers: Sequence[int] = (5, 5),
        strides: Sequence[int] = (1, 2),
        channels: Sequence[int] = (128, 256),
        up_strides: Sequence[int] = (1, 2),
        up_channels: Sequence[int] = (256, 256),
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        lengths = {len(layers), len(strides), len(channels), len(up_strides), len(up_channels)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError("neck: layers, strides, channels, up_strides and up_channels need one entry per block")
        self.out_channels = sum(up_channels)
        self.out_shape = _output_shape(in_shape, strides, up_strides)
        self._in_shape = tuple(in_shape)
        self.blocks = nn.ModuleList()
        self.deblocks = nn.ModuleList()

        def norm(channels: int) -> nn.Module:
            return BatchNorm2d(channels, eps=1e-3, momentum=norm_momentum)

        width = in_channels
        for num, stride, block, up_stride, up in zip(layers, strides, channels, up_strides, up_channels, strict=True):
            self.blocks.append(_block(width, block, num, stride, norm))
            enlarge = nn.ConvTranspose2d(block, up, up_stride, stride=up_stride, bias=False)
            self.deblocks.append(nn.Sequential(enlarge, norm(up), nn.ReLU()))
            width = block

    def forward(self, bev: BEVMap) -> BEVMap:
        """Return the map that the head reads.

        Raises:
            ValueError: the map has another size than the neck was built for.
        """
        x = bev.features
        if x.shape[2:] != self._in_shape:
            raise ValueError(f"neck: built for a map of {self._in_shape} (y, x) cells, got {tuple(x.shape[2:])}")
        outputs: list[Tensor] = []
        for block, deblock in zip(self.blocks, self.deblocks, strict=True):
            x = block(x)
            outputs.append(deblock(x))
        shrink = (self._in_shape[0] / self.out_shape[0], self._in_shape[1] / self.out_shape[1])
        stride = (round(bev.stride[0] * shrink[0]), round(bev.stride[1] * shrink[1]))
        return BEVMap(torch.cat(outputs, 1), bev.grid, stride)


def _block(in_channels: int, channels: int, num: int, stride: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for index in range(num + 1):
        conv = nn.Conv2d(
            in_channels if index == 0 else channels,
            channels,
            3,
            stride=stride if index == 0 else 1,
            padding=1,
            bias=False,
        )
        parts += [conv, norm(channels), nn.ReLU()]
    return nn.Sequential(*parts)


def _output_shape(in_shape: tuple[int, int], strides: Sequence[int], up_strides: Sequence[int]) -> tuple[int, int]:
    """Return the size that all blocks' enlarged outputs share, or say which map would do."""
    height, width = in_shape
    shapes: list[tuple[int, int]] = []
    for stride, up in zip(strides, up_strides, strict=True):
        height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
        shapes.append((height * up, width * up))
    if len(set(shapes)) > 1:
        total = torch.tensor(strides).prod().item()
        raise ValueError(
            f"neck: on a map of {tuple(in_shape)} (y, x) cells the blocks' outputs have sizes {shapes}; choose strides "
            f"and up_strides that undo each other, and a grid whose map is a multiple of {total} cells"
        )
    return shapes[0]
