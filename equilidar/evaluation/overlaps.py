"""Overlaps of ground truth and detections of the same sweep, in the image, seen from above, and in space.

Legend: G ground truths, D detections, P pairs, F + 1 offsets of F sweeps.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from equilidar.evaluation.compiled import compiled

Rows = Int64[np.ndarray, " P"]


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Pairs of a ground truth and a detection of the same sweep, and how far they overlap.

    Attributes:
        ground_truth: (P,) rows of the ground truth, ascending.
        detection: (P,) rows of the detections, ascending for each ground truth.
        value: (P,) overlap, 0 to 1. Pairs that are not listed do not overlap.
    """

    ground_truth: Rows
    detection: Rows
    value: Float64[np.ndarray, " P"]

    def above(self, minimum: float) -> "Overlaps":
        """Return the pairs that overlap by more than `minimum`."""
        return self.select(self.value > minimum)

    def select(self, mask: Bool[np.ndarray, " P"]) -> "Overlaps":
        """Return the pairs where `mask` is true."""
        return Overlaps(self.ground_truth[mask], self.detection[mask], self.value[mask])


def same_sweep_pairs(
    ground_truth_offsets: Int64[np.ndarray, " F1"], detection_offsets: Int64[np.ndarray, " F1"]
) -> tuple[Rows, Rows]:
    """Return the rows of all pairs of a ground truth and a detection of one sweep, sorted."""
    if len(ground_truth_offsets) != len(detection_offsets):
        raise ValueError(
            f"ground truth of {len(ground_truth_offsets) - 1} sweeps cannot be compared with detections of "
            f"{len(detection_offsets) - 1}"
        )
    partners = np.repeat(np.diff(detection_offsets), np.diff(ground_truth_offsets))
    first_partner = np.repeat(detection_offsets[:-1], np.diff(ground_truth_offsets))
    ground_truth = np.repeat(np.arange(len(partners)), partners)
    first_pair = np.cumsum(partners) - partners
    within = np.arange(len(ground_truth)) - np.repeat(first_pair, partners)
    return ground_truth, np.repeat(first_partner, partners) + within


def image_overlaps(
    ground_truth: Float64[np.ndarray, "G 4"],
    detections: Float64[np.ndarray, "D 4"],
    pairs: tuple[Rows, Rows],
    *,
    of_detection: bool = False,
) -> Overlaps:
    """Compare boxes x1, y1, x2, y2 in the image.

    Args:
        ground_truth: boxes in pixels.
        detections: boxes in pixels.
        pairs: rows to be compared.
        of_detection: divide by the area of the detection instead of that of the union.
    """
    a, b = ground_truth[pairs[0]], detections[pairs[1]]
    extent = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    meets = (extent > 0).all(1)
    a, b, rows = a[meets], b[meets], (pairs[0][meets], pairs[1][meets])
    shared = extent[meets].prod(1)
    detection_area = (b[:, 2:] - b[:, :2]).prod(1)
    whole = detection_area if of_detection else (a[:, 2:] - a[:, :2]).prod(1) + detection_area - shared
    return Overlaps(*rows, shared / whole)


def upright_overlaps(
    ground_truth: Float64[np.ndarray, "G 7"], detections: Float64[np.ndarray, "D 7"], pairs: tuple[Rows, Rows]
) -> tuple[Overlaps, Overlaps]:
    """Compare upright boxes x, y, z (center), length, width, height, yaw.

    A box with a size that is not positive has no place in space and overlaps nothing.

    Returns:
        intersection over union of the areas seen from above, and of the volumes; both list the same pairs.
    """
    shared, shared_height = _intersections(ground_truth, detections, *pairs)
    meets = shared > 0
    rows = pairs[0][meets], pairs[1][meets]
    shared, volume = shared[meets], shared[meets] * shared_height[meets]
    a, b = ground_truth[rows[0], 3:6], detections[rows[1], 3:6]
    area = shared / (a[:, :2].prod(1) + b[:, :2].prod(1) - shared)
    return Overlaps(*rows, area), Overlaps(*rows, volume / (a.prod(1) + b.prod(1) - volume))


@compiled
def _clip(polygon, num, axis, sign, limit, result):
    """Keep the part of a convex polygon where sign * coordinate <= limit (Sutherland and Hodgman, 1974)."""
    kept = 0
    for i in range(num):
        j = (i + 1) % num
        here, there = limit - sign * polygon[i, axis], limit - sign * polygon[j, axis]
        if here >= 0:
            result[kept] = polygon[i]
            kept += 1
        if here * there < 0:
            share = here / (here - there)
            result[kept, axis] = sign * limit
            other = 1 - axis
            result[kept, other] = polygon[i, other] + share * (polygon[j, other] - polygon[i, other])
            kept += 1
    return kept


@compiled
def _shared_area(a, b, polygon, scratch):
    """Return the area shared by two oriented rectangles: b's corners, in a's axes, clipped by a's four sides."""
    # Differences before products: exact to rounding wherever on the map the boxes lie.
    east, north = b[0] - a[0], b[1] - a[1]
    cos, sin = math.cos(a[6]), math.sin(a[6])
    x, y = cos * east + sin * north, cos * north - sin * east
    cos, sin = math.cos(b[6] - a[6]), math.sin(b[6] - a[6])
    for corner, (along, across) in enumerate(((0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5))):
        length, width = along * b[3], across * b[4]
        polygon[corner, 0] = x + cos * length - sin * width
        polygon[corner, 1] = y + sin * length + cos * width
    num = _clip(polygon, 4, 0, 1.0, a[3] / 2, scratch)
    num = _clip(scratch, num, 0, -1.0, a[3] / 2, polygon)
    num = _clip(polygon, num, 1, 1.0, a[4] / 2, scratch)
    num = _clip(scratch, num, 1, -1.0, a[4] / 2, polygon)
    twice = 0.0
    for i in range(num):
        j = (i + 1) % num
        twice += polygon[i, 0] * polygon[j, 1] - polygon[j, 0] * polygon[i, 1]
    return max(twice / 2, 0.0)


@compiled
def _intersections(boxes_a, boxes_b, rows_a, rows_b):
    """Return the shared area and the shared height of each pair of upright boxes."""
    area, height = np.zeros(len(rows_a)), np.zeros(len(rows_a))
    polygon, scratch = np.empty((16, 2)), np.empty((16, 2))
    for p in range(len(rows_a)):
        a, b = boxes_a[rows_a[p]], boxes_b[rows_b[p]]
        if min(a[3:6].min(), b[3:6].min()) <= 0:
            continue
        reach = (math.hypot(a[3], a[4]) + math.hypot(b[3], b[4])) / 2
        if abs(a[0] - b[0]) > reach or abs(a[1] - b[1]) > reach or math.hypot(a[0] - b[0], a[1] - b[1]) > reach:
            continue
        area[p] = _shared_area(a, b, polygon, scratch)
        top = min(a[2] + a[5] / 2, b[2] + b[5] / 2)
        height[p] = max(top - max(a[2] - a[5] / 2, b[2] - b[5] / 2), 0.0)
    return area, height
