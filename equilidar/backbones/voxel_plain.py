"""VoxelBackBone8x: the sparse encoder of SECOND (Yan et al., Sensors 2018) as OpenPCDet has it."""

from typing import ClassVar

from torch import nn

from equilidar.backbones.voxel_encoder import VoxelEncoder8x


class VoxelBackBone8x(VoxelEncoder8x):
    """Twelve sparse convolutions in five stages; see `VoxelEncoder8x`."""

    CHANNELS: ClassVar[tuple[int, ...]] = (16, 16, 32, 64, 64, 128)

    def _first(self, inside: int, outside: int) -> nn.Sequential:
        return nn.Sequential(self._submanifold(inside, outside))

    def _between(self, channels: int) -> tuple[nn.Module, nn.Module]:
        return self._submanifold(channels, channels), self._submanifold(channels, channels)
