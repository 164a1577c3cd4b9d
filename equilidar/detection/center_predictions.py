"""What a center head says, and where its cells lie."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.structures.grid import GridSpec
from equilidar.structures.host_sync import constants
from equilidar.structures.moving import Movable

# Numbers per cell, in order: offset of the center in its cell (x, y), height of the center, log of length, width and
# height, cosine and sine of the yaw, velocity (x, y) where it is asked for.
BOX_CODES = 8
VELOCITY_CODES = 2


@dataclass(frozen=True)
class CenterLayout:
    """The head's map and classes.

    Attributes:
        grid: the input grid, over which the map spreads.
        shape: (y, x) cells of the map.
        tasks: class names by task; classes of one task share box maps and suppress each other.
        has_velocity: the codes hold a velocity.

    Raises:
        ValueError: the grid is no whole number of voxels per cell.
    """

    grid: GridSpec
    shape: tuple[int, int]
    tasks: tuple[tuple[str, ...], ...]
    has_velocity: bool

    def __post_init__(self) -> None:
        _, *voxels = self.grid.shape
        if any(voxel % cell for voxel, cell in zip(voxels, self.shape, strict=True)):
            raise ValueError(f"center head: {tuple(voxels)} (y, x) voxels are no multiple of {self.shape} cells")

    @property
    def classes(self) -> tuple[str, ...]:
        """Return all classes, task by task: the order of the heat maps."""
        return tuple(name for task in self.tasks for name in task)

    @property
    def task_of_class(self) -> tuple[int, ...]:
        return tuple(number for number, task in enumerate(self.tasks) for _ in task)

    @property
    def num_codes(self) -> int:
        return BOX_CODES + VELOCITY_CODES * self.has_velocity

    def to_cells(self, xy: Float[Tensor, "*S 2"]) -> Float[Tensor, "*S 2"]:
        """Return metric positions in cells of the map, (0, 0) at its lower corner; in float32, as OpenPCDet divides."""
        low, size, stride = self._scales(xy)
        return (xy - low) / size / stride

    def to_metres(self, cells: Float[Tensor, "*S 2"]) -> Float[Tensor, "*S 2"]:
        """Return positions in cells as metres; the inverse of `to_cells`."""
        low, size, stride = self._scales(cells)
        return cells * stride * size + low

    def extent_in_cells(self, extent: Float[Tensor, "*S 2"]) -> Float[Tensor, "*S 2"]:
        """Return metric extents along x and y in cells."""
        _, size, stride = self._scales(extent)
        return extent / size / stride

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _, *voxels = self.grid.shape
        stride = [voxel // cell for voxel, cell in zip(voxels[::-1], self.shape[::-1], strict=True)]
        values = (self.grid.low[:2], self.grid.voxel_size[:2], stride)
        low, size, step = (constants(numbers, device=like.device, dtype=like.dtype) for numbers in values)
        return low, size, step


@dataclass(slots=True)
class CenterPredictions(Movable):
    """Raw outputs for B sweeps, K classes in T tasks.

    Attributes:
        heatmap: (B, K, H, W) logits of a center of each class, H along y.
        codes: (B, T, R, H, W) box of each task if there is a center; see `BOX_CODES`.
        layout: what the cells and channels mean.
    """

    heatmap: Float[Tensor, "B K H W"]
    codes: Float[Tensor, "B T R H W"]
    layout: CenterLayout

    def codes_at(self, item: Tensor, task: Tensor, cell: Tensor) -> Float[Tensor, "*S R"]:
        """Return the codes of some cells, by item, task and y * W + x, whose shapes broadcast."""
        return self.codes.flatten(3)[item, task, :, cell]


def class_table(layout: CenterLayout, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return each class's task and its place among that task's classes, (K,) both."""
    task = layout.task_of_class
    place = [number for names in layout.tasks for number in range(len(names))]
    return constants(task, device=device), constants(place, device=device)
