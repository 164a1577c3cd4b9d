"""VoxelResBackBone8x: the residual sparse encoder of CenterPoint (Yin et al., CVPR 2021) as OpenPCDet has it."""

from typing import ClassVar

from torch import nn

from equilidar.backbones.voxel_encoder import VoxelEncoder8x
from equilidar.nn import SparseResidualBlock


class VoxelResBackBone8x(VoxelEncoder8x):
    """Twenty-one sparse convolutions in five stages, two residual blocks in each but the last; see `VoxelEncoder8x`.

    The convolutions of residual blocks have a bias, the others have none. The channels of conv_input and conv1 must be
    equal, for nothing but residual blocks lies between them.
    """

    CHANNELS: ClassVar[tuple[int, ...]] = (16, 16, 32, 64, 128, 128)

    def _first(self, inside: int, outside: int) -> nn.Sequential:
        if inside != outside:
            raise ValueError(
                f"VoxelResBackBone8x: channels of conv_input and conv1 must be equal, got {inside} and {outside}"
            )
        return nn.Sequential(*self._between(outside))

    def _between(self, channels: int) -> tuple[nn.Module, nn.Module]:
        return self._residual(channels), self._residual(channels)

    def _residual(self, channels: int) -> SparseResidualBlock:
        return SparseResidualBlock(channels, eps=self._norm_eps, momentum=self._norm_momentum, engine=self._engine)
