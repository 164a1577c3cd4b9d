"""Anchors: boxes of typical size and heading at every cell of the bird's-eye-view map."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.structures.grid import GridSpec
from equilidar.structures.moving import Movable


@dataclass(frozen=True)
class AnchorClass:
    """The anchors of one class, and when one of them counts as found.

    Attributes:
        name: class name, as the dataset has it.
        size: (length, width, height), metres.
        bottom: z of the anchors' lower face in the frame of the points, metres.
        matched: an anchor with at least this nearest-BEV IoU to a box is positive.
        unmatched: one with less than this to every box is background; between the two it is ignored.
        yaws: headings, radians. OpenPCDet's second one is 1.57, not pi / 2.
    """

    name: str
    size: Sequence[float | int]
    bottom: float
    matched: float
    unmatched: float
    yaws: Sequence[float | int] = (0.0, 1.57)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(float(value) for value in self.size))
        object.__setattr__(self, "yaws", tuple(float(value) for value in self.yaws))
        if len(self.size) != 3 or min(self.size) <= 0:
            raise ValueError(f"anchor {self.name}: size must be 3 positive lengths (l, w, h), got {self.size}")
        if not 0 < self.unmatched <= self.matched <= 1:
            raise ValueError(
                f"anchor {self.name}: needs 0 < unmatched <= matched <= 1, got {self.unmatched} and {self.matched}"
            )
        if not self.yaws:
            raise ValueError(f"anchor {self.name}: yaws is empty")


@dataclass(slots=True)
class Anchors(Movable):
    """All anchors of a map in flat order (y, x, class, yaw).

    Attributes:
        boxes: (A, 7) x, y, z, length, width, height, yaw.
        classes: the K classes, in the order of the flat layout.
        shape: (y, x) cells of the map.
    """

    boxes: Float[Tensor, "A 7"]
    classes: tuple[AnchorClass, ...]
    shape: tuple[int, int]

    @property
    def per_cell(self) -> int:
        return anchors_per_cell(self.classes)

    def class_in_cell(self) -> list[int]:
        """Return the class of each anchor of a cell."""
        return [index for index, anchor in enumerate(self.classes) for _ in anchor.yaws]

    def class_index(self) -> Int64[Tensor, " A"]:
        """Return the class of each anchor."""
        pattern = torch.tensor(self.class_in_cell(), device=self.boxes.device)
        return pattern.repeat(len(self.boxes) // self.per_cell)


def anchors_per_cell(classes: Sequence[AnchorClass]) -> int:
    """Return the number of anchors at one cell."""
    return sum(len(anchor.yaws) for anchor in classes)


def make_anchors(classes: Sequence[AnchorClass], grid: GridSpec, shape: tuple[int, int]) -> Anchors:
    """Place anchors over the range of `grid`, from its first to its last metre inclusive.

    That is OpenPCDet's placement (`align_center: False`), half a cell off the cells' centers at the borders and
    exact in the middle; its weights expect it.

    Args:
        classes: one entry for each class.
        grid: the input grid, for its range.
        shape: (y, x) cells of the map.
    """
    height, width = shape
    x = _spread(grid.low[0], grid.high[0], width)
    y = _spread(grid.low[1], grid.high[1], height)
    in_cell = torch.tensor(
        [[anchor.bottom + anchor.size[2] / 2, *anchor.size, yaw] for anchor in classes for yaw in anchor.yaws]
    )
    num = len(in_cell)
    boxes = torch.empty(height, width, num, 7)
    boxes[..., 0] = x[None, :, None]
    boxes[..., 1] = y[:, None, None]
    boxes[..., 2:] = in_cell
    return Anchors(boxes.view(-1, 7), tuple(classes), shape)


def _spread(low: float, high: float, num: int) -> Tensor:
    """Return `num` evenly spaced values from low to high."""
    if num == 1:
        return torch.tensor([(low + high) / 2])
    # The range in float32 and `arange` give the field's anchors to the last bit, on which ties in the assignment hang.
    start, stop = torch.tensor(low, dtype=torch.float32), torch.tensor(high, dtype=torch.float32)
    step = float(stop - start) / (num - 1)
    return torch.arange(float(start), float(start) + (num - 0.5) * step, step, dtype=torch.float32)
