"""Center head: a heat map of centers for each class, and one box per task and cell (Yin et al., CVPR 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equilidar.detection.center_predictions import CenterLayout, CenterPredictions
from equilidar.nn.norm import BatchNorm2d
from equilidar.structures import BEVMap
from equilidar.structures.grid import GridSpec

# Channels of a task's box maps, by OpenPCDet's names and in its HEAD_ORDER.
_BOX_MAPS = {"center": 2, "center_z": 1, "dim": 3, "rot": 2}
_VELOCITY_MAPS = {"vel": 2}
# A heat map starts near a probability of 0.1 (Law & Deng 2018, CornerNet).
_HEATMAP_BIAS = -2.19


class TaskHead(nn.Module):
    """The maps of one task, each by a 3x3 convolution with normalisation and one more 3x3 convolution.

    Args:
        in_channels: channels of the shared map.
        num_classes: heat maps.
        has_velocity: whether there is a map of velocities.
    """

    def __init__(self, in_channels: int, num_classes: int, *, has_velocity: bool) -> None:
        super().__init__()
        boxes = _BOX_MAPS | (_VELOCITY_MAPS if has_velocity else {})
        self._box_maps = tuple(boxes)
        for name, channels in (boxes | {"hm": num_classes}).items():
            inner = nn.Sequential(_conv(in_channels, in_channels), BatchNorm2d(in_channels), nn.ReLU())
            self.add_module(name, nn.Sequential(inner, _conv(in_channels, channels)))
        for name in self._box_maps:
            for module in self.get_submodule(name).modules():
                if isinstance(module, nn.Conv2d) and module.bias is not None:
                    nn.init.kaiming_normal_(module.weight)
                    nn.init.zeros_(module.bias)
        bias = self.get_parameter("hm.1.bias")
        nn.init.constant_(bias, _HEATMAP_BIAS)

    def forward(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """Return heat map logits (B, C, H, W) and box codes (B, R, H, W)."""
        codes = [self.get_submodule(name)(shared) for name in self._box_maps]
        return self.get_submodule("hm")(shared), torch.cat(codes, 1)


class CenterHead(nn.Module):
    """A shared 3x3 convolution, then one `TaskHead` for each group of classes (OpenPCDet's CenterHead).

    Convolutions have a bias before the normalisation (USE_BIAS_BEFORE_NORM); the normalisation is torch's own, epsilon
    1e-5 and momentum 0.1, unlike that of backbone and neck.

    Args:
        in_channels: channels of the neck's map.
        shape: (y, x) cells of the map.
        grid: the input grid, over which the map spreads.
        tasks: class names by task.
        has_velocity: whether boxes have a velocity.
        shared_channels: width of the shared map and of what each task makes of it.
    """

    def __init__(
        self,
        in_channels: int,
        shape: tuple[int, int],
        grid: GridSpec,
        tasks: Sequence[Sequence[str]],
        *,
        has_velocity: bool = False,
        shared_channels: int = 64,
    ) -> None:
        super().__init__()
        if not tasks or any(not task or isinstance(task, str) for task in tasks):
            raise ValueError(f"center head: tasks must be lists of class names, none of them empty, got {list(tasks)}")
        self.layout = CenterLayout(grid, (shape[0], shape[1]), tuple(tuple(task) for task in tasks), has_velocity)
        self.shared_conv = nn.Sequential(_conv(in_channels, shared_channels), BatchNorm2d(shared_channels), nn.ReLU())
        self.heads_list = nn.ModuleList(
            [TaskHead(shared_channels, len(task), has_velocity=has_velocity) for task in self.layout.tasks]
        )

    def forward(self, bev: BEVMap) -> CenterPredictions:
        """Return the raw outputs.

        Raises:
            ValueError: the map has another size than the head was built for.
        """
        x = bev.features
        if x.shape[2:] != self.layout.shape:
            raise ValueError(
                f"center head: built for a map of {self.layout.shape} (y, x) cells, got {tuple(x.shape[2:])}"
            )
        shared = self.shared_conv(x)
        heatmaps, codes = zip(*(head(shared) for head in self.heads_list), strict=True)
        return CenterPredictions(torch.cat(heatmaps, 1), torch.stack(codes, 1), self.layout)


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
