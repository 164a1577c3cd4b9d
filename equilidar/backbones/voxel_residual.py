"""VoxelResBackBone8x: the residual sparse encoder of CenterPoint (Yin et al., CVPR 2021) as OpenPCDet has it."""

from collections.abc import Sequence

from torch import nn

from equilidar.backbones.voxel_encoder import VoxelEncoder8x
from equilidar.nn import SparseResidualBlock
from equilidar.structures import GridSpec

_CHANNELS = (16, 16, 32, 64, 128, 128)


class VoxelResBackBone8x(VoxelEncoder8x):
    """Twenty-one sparse convolutions in five stages, two residual blocks in each but the last; see `VoxelEncoder8x`.

    The convolutions of residual blocks have a bias, the others have none.
    """

    def __init__(
        self,
        grid: GridSpec,
        in_channels: int,
        engine: str = "auto",
        width: float = 1.0,
        channels: Sequence[int] = _CHANNELS,
        norm_eps: float = 1e-3,
        norm_momentum: float = 0.01,
    ) -> None:
        """Build the layers.

        Args:
            grid: input range and voxel size; y and x must hold multiples of 8 voxels, z 24, 40, 56 ...
            in_channels: 3 coordinates and the point features.
            engine: of the sparse convolutions: auto, reference or spconv.
            width: factor on all channels, for small machines.
            channels: of conv_input, conv1, conv2, conv3, conv4, conv_out; the first two must be equal, for nothing
                but residual blocks lies between them.
            norm_eps: epsilon of batch normalisation.
            norm_momentum: momentum of batch normalisation.

        Raises:
            ValueError: the grid does not divide, a size is not positive, or the first two channels differ.
        """
        widths = [round(width * count) for count in channels]
        super().__init__(grid, in_channels, engine, widths, norm_eps, norm_momentum)
        stem, first, second, third, fourth, last = widths
        if stem != first:
            raise ValueError(f"VoxelResBackBone8x: channels of conv_input and conv1 must be equal, got {widths}")
        self.conv_input = self._submanifold(in_channels, stem)
        self.conv1 = nn.Sequential(self._residual(stem), self._residual(stem))
        self.conv2 = self._stage("conv2", first, second)
        self.conv3 = self._stage("conv3", second, third)
        self.conv4 = self._stage("conv4", third, fourth)
        self.conv_out = self._strided("conv_out", fourth, last)

    def _residual(self, channels: int) -> SparseResidualBlock:
        return SparseResidualBlock(channels, eps=self._norm_eps, momentum=self._norm_momentum, engine=self._engine)

    def _stage(self, name: str, inside: int, outside: int) -> nn.Sequential:
        return nn.Sequential(self._strided(name, inside, outside), self._residual(outside), self._residual(outside))
