"""What heat maps and codes should say (CenterPoint, Yin et al. 2021, section 4; OpenPCDet's CenterHead).

Each box puts a Gaussian on the heat map of its class around the cell that holds its center, so wide that a box moved
by its radius would still overlap the box by `overlap` (Law & Deng 2018, CornerNet); where Gaussians meet, the higher
counts. Codes are wanted at the center's cell alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.detection.center_predictions import CenterLayout, class_table
from equilidar.structures import Boxes3D
from equilidar.structures.host_sync import allowed_sync, constants
from equilidar.structures.moving import Movable

# Far above any map: keeps the arithmetic of a nonsensical size finite.
_MAX_CELLS = 1e4


@dataclass(slots=True)
class CenterTargets(Movable):
    """Targets of B sweeps with M boxes of known classes in all; there is no limit to their number.

    Attributes:
        heatmap: (B, K, H, W) 0..1, 1 at centers.
        item: (M,) int64 sweep of each box.
        task: (M,) int64 task of its class.
        cell: (M,) int64 y * W + x of its center.
        codes: (M, R) what the codes should be there; NaN where it is not known.
    """

    heatmap: Float[Tensor, "B K H W"]
    item: Int64[Tensor, " M"]
    task: Int64[Tensor, " M"]
    cell: Int64[Tensor, " M"]
    codes: Float[Tensor, "M R"]


@dataclass(frozen=True)
class CenterAssignment:
    """Defaults as all of OpenPCDet's CenterPoint configs (TARGET_ASSIGNER_CONFIG).

    Boxes whose center lies outside the map, or in the last half of its last cells, are learned half a cell inside, as
    OpenPCDet clamps them; training drops those outside before (`LabelledAugmentation`). OpenPCDet keeps 500 boxes of a
    task and drops the rest unsaid; here all are kept, for no table has to be filled up.

    Attributes:
        overlap: IoU that a box moved by the radius keeps.
        min_radius: least radius, cells.
    """

    overlap: float = 0.1
    min_radius: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.overlap < 1 or self.min_radius < 0:
            raise ValueError(
                f"center targets: overlap must lie between 0 and 1 and min_radius be at least 0, got {self.overlap} "
                f"and {self.min_radius}"
            )

    def __call__(self, layout: CenterLayout, boxes: Boxes3D) -> CenterTargets:
        """Return the targets.

        Args:
            layout: of the head.
            boxes: with `label` an index into `layout.classes`; boxes with another label (-1, say) are ignored.
        """
        boxes = boxes.select((boxes.label >= 0) & (boxes.label < len(layout.classes)))
        height, width = layout.shape
        limit = constants([width - 0.5, height - 0.5], device=boxes.center.device, dtype=boxes.center.dtype)
        place = torch.minimum(layout.to_cells(boxes.center[:, :2]).clamp(min=0), limit)
        column, row = place.long().unbind(1)
        radius = gaussian_radius(layout.extent_in_cells(boxes.size[:, :2]).clamp(max=_MAX_CELLS), self.overlap)
        task_of_class, _ = class_table(layout, boxes.label.device)
        return CenterTargets(
            _draw(layout, boxes, column, row, radius.long().clamp(min=self.min_radius)),
            boxes.batch_index,
            task_of_class[boxes.label],
            row * width + column,
            _encode(boxes, place - place.floor(), layout),
        )


def gaussian_radius(extent: Float[Tensor, "M 2"], overlap: float) -> Float[Tensor, " M"]:
    """Return how far a box may move, in cells, and still overlap itself by `overlap`.

    The least of three roots, for both corners moved inwards, outwards, or alike. Their formulas are those that
    CornerNet published and its successors kept for the sake of their weights, though the roots of the second and
    third equation should be divided by twice their leading coefficients.

    Args:
        extent: length and width, cells.
        overlap: IoU to be kept.
    """
    length, width = extent.unbind(1)
    perimeter = length + width
    # Factors in this order: what is cut down to a whole number must not differ by rounding.
    alike = width * length * (1 - overlap) / (1 + overlap)
    first = (perimeter + (perimeter**2 - 4 * alike).sqrt()) / 2
    inwards, inwards_free = 2 * perimeter, (1 - overlap) * width * length
    second = (inwards + (inwards**2 - 16 * inwards_free).sqrt()) / 2
    outwards, outwards_free = -2 * overlap * perimeter, (overlap - 1) * width * length
    third = (outwards + (outwards**2 - 16 * overlap * outwards_free).sqrt()) / 2
    return torch.minimum(torch.minimum(first, second), third)


def _draw(layout: CenterLayout, boxes: Boxes3D, column: Tensor, row: Tensor, radius: Tensor) -> Tensor:
    """Draw a Gaussian of standard deviation (2 radius + 1) / 6 for each box, cut off at its radius.

    All pixels of all boxes are listed and written by their maximum: which of them is first does not matter.
    """
    height, width = layout.shape
    num_classes = len(layout.classes)
    # Farther pixels lie outside the map whatever the center.
    side = 2 * radius.clamp(max=max(height, width)) + 1
    box = torch.arange(len(side), device=side.device)
    with allowed_sync("number of pixels of the Gaussians"):
        box = box.repeat_interleave(side**2)
    first = (side**2).cumsum(0) - side**2
    pixel = torch.arange(len(box), device=box.device) - first[box]
    dy = pixel.div(side[box], rounding_mode="floor") - side[box] // 2
    dx = pixel % side[box] - side[box] // 2
    y, x = row[box] + dy, column[box] + dx

    deviation = (2 * radius[box] + 1).double() / 6
    value = torch.exp(-(dx * dx + dy * dy) / (2 * deviation**2)).float()
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    plane = boxes.batch_index * num_classes + boxes.label
    index = (plane[box] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
    flat = value.new_zeros(boxes.batch_size * num_classes * height * width)
    flat.scatter_reduce_(0, index, torch.where(inside, value, 0.0), "amax")
    return flat.view(boxes.batch_size, num_classes, height, width)


def _encode(boxes: Boxes3D, offset: Tensor, layout: CenterLayout) -> Tensor:
    codes = [offset, boxes.center[:, 2:], boxes.size.log(), boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]]
    if layout.has_velocity:
        codes.append(boxes.velocity[:, :2])
    return torch.cat(codes, 1)
