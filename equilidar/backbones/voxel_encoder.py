"""What the sparse encoders of stride 8 share: grid, sizes, and the way through their stages."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import nn

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.nn import SparseBlock, SparseConv3d, SubmanifoldConv3d
from equilidar.ops.rulebook import IntTriple, output_shape
from equilidar.ops.voxelize import voxelize_mean
from equilidar.structures import BackboneFeatures, GridSpec, PointCloudBatch, SparseVoxels

# Strided convolutions by stage: kernel, stride, padding (z, y, x).
_DOWN: dict[str, tuple[IntTriple, IntTriple, IntTriple]] = {
    "conv2": ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    "conv3": ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    "conv4": ((3, 3, 3), (2, 2, 2), (0, 1, 1)),
    "conv_out": ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
}


class VoxelEncoder8x(nn.Module, ABC):
    """Five stages of sparse convolutions, down to stride (16, 8, 8); a subclass says what a stage is made of.

    Modules are named as OpenPCDet's `backbone_3d` names them (commit 8cacccec, `spconv_backbone.py`), so that its
    weights load key by key. The z axis is padded by one cell at its upper end: 40 cells run through 41, 21, 11, 5 and
    2 levels. Stages of the result: "conv1", "conv2", "conv3", "conv4" and "out".
    """

    CHANNELS: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        grid: GridSpec,
        in_channels: int,
        engine: str = "auto",
        width: float = 1.0,
        channels: Sequence[int] | None = None,
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.01,
    ) -> None:
        """Build the layers.

        Args:
            grid: input range and voxel size; y and x must hold multiples of 8 voxels, z 24, 40, 56 ...
            in_channels: 3 coordinates and the point features.
            engine: of the sparse convolutions: auto, reference or spconv.
            width: factor on all channels, for small machines.
            channels: of conv_input, conv1, conv2, conv3, conv4, conv_out; the class's own CHANNELS by default.
            norm_eps: epsilon of batch normalisation.
            norm_momentum: momentum of batch normalisation.

        Raises:
            ValueError: the grid does not divide, or a size is not one that can be built.
        """
        super().__init__()
        name = type(self).__name__
        check_grid(grid, name)
        widths = [round(width * count) for count in (self.CHANNELS if channels is None else channels)]
        if len(widths) != 6 or min(widths) < 1 or in_channels < 3:
            raise ValueError(
                f"{name}: channels times width must be 6 positive counts, got {list(widths)}; "
                f"in_channels must be at least 3 (x, y, z), got {in_channels}"
            )
        self.grid, self.in_channels = grid, in_channels
        self.arguments = {"channels": list(widths), "norm_eps": norm_eps}
        self.feature_info = _feature_info(grid, widths)
        self._engine, self._norm_eps, self._norm_momentum = engine, norm_eps, norm_momentum
        stem, first, second, third, fourth, last = widths
        self.conv_input = self._submanifold(in_channels, stem)
        self.conv1 = self._first(stem, first)
        self.conv2 = nn.Sequential(self._strided("conv2", first, second), *self._between(second))
        self.conv3 = nn.Sequential(self._strided("conv3", second, third), *self._between(third))
        self.conv4 = nn.Sequential(self._strided("conv4", third, fourth), *self._between(fourth))
        self.conv_out = self._strided("conv_out", fourth, last)

    @abstractmethod
    def _first(self, inside: int, outside: int) -> nn.Sequential:
        """Return the first stage, which has no strided convolution."""

    @abstractmethod
    def _between(self, channels: int) -> tuple[nn.Module, nn.Module]:
        """Return what follows a strided convolution."""

    def _submanifold(self, inside: int, outside: int) -> SparseBlock:
        conv = SubmanifoldConv3d(inside, outside, 3, engine=self._engine)
        return SparseBlock(conv, self._norm_eps, self._norm_momentum)

    def _strided(self, stage: str, inside: int, outside: int) -> SparseBlock:
        conv = SparseConv3d(inside, outside, *_DOWN[stage], engine=self._engine)
        return SparseBlock(conv, self._norm_eps, self._norm_momentum)

    def encode(self, points: PointCloudBatch) -> BackboneFeatures:
        """Voxelize by the mean of each voxel's points, then encode."""
        return self(voxelize_mean(points, self.grid))

    def forward(self, voxels: SparseVoxels) -> BackboneFeatures:
        """Encode voxels of this backbone's grid; `voxels` keeps the rulebooks for a second network."""
        if voxels.grid != self.grid:
            raise ValueError(f"voxels of {voxels.grid} given to a backbone for {self.grid}")
        if voxels.features.shape[1] != self.in_channels:
            raise ValueError(
                f"voxels have {voxels.features.shape[1]} columns, the backbone takes in_channels={self.in_channels} "
                "(x, y, z and the point features)"
            )
        padded = SparseVoxels(
            voxels.coords, voxels.features, voxels.grid, _padded(voxels.grid), voxels.stride, voxels.batch_size
        )
        padded.rulebooks = voxels.rulebooks
        conv1 = self.conv1(self.conv_input(padded))
        conv2 = self.conv2(conv1)
        conv3 = self.conv3(conv2)
        conv4 = self.conv4(conv3)
        return BackboneFeatures(
            {"conv1": conv1, "conv2": conv2, "conv3": conv3, "conv4": conv4, "out": self.conv_out(conv4)}
        )


def check_grid(grid: GridSpec, name: str) -> None:
    """Raise ValueError, naming the backbone, unless every cell reaches the output and strides divide the map."""
    z, y, x = grid.shape
    problems = []
    for axis, letter, count in ((1, "y", y), (0, "x", x)):
        if count % 8:
            size = grid.voxel_size[axis]
            problems.append(
                f"{letter} holds {count} voxels of {size} m, not a multiple of 8: make the {letter} range "
                f"{count // 8 * 8 * size:g} or {(count // 8 + 1) * 8 * size:g} m long, or change voxel_size"
            )
    # With another number, the strided convolutions in z would leave out the highest levels without a word.
    if z % 16 != 8 or z < 24:
        size = grid.voxel_size[2]
        near = max(24, (z - 8 + 8) // 16 * 16 + 8)
        problems.append(
            f"z holds {z} voxels of {size:g} m, not 24, 40, 56 ...: make the z range {near * size:g} m long, "
            f"or voxel_size {z * size / 40:g} m along z"
        )
    if problems:
        raise ValueError(f"grid does not fit {name}: " + "; ".join(problems))


def _padded(grid: GridSpec) -> IntTriple:
    z, y, x = grid.shape
    return z + 1, y, x


def _feature_info(grid: GridSpec, widths: Sequence[int]) -> FeatureInfo:
    shape, stride = _padded(grid), (1, 1, 1)
    strides = {"conv1": stride}
    for stage, (kernel, step, padding) in _DOWN.items():
        shape = output_shape(shape, kernel, step, padding)
        stride = (stride[0] * step[0], stride[1] * step[1], stride[2] * step[2])
        strides["out" if stage == "conv_out" else stage] = stride
    channels = dict(zip(strides, widths[1:], strict=True))
    return FeatureInfo(channels, strides, channels["out"] * shape[0], shape[1:], stride[1:])
