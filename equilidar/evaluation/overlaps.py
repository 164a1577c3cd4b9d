"""Overlaps of ground truth and detections of the same sweep, in the image, seen from above, and in space.

Legend: G ground truths, D detections, P pairs, F + 1 offsets of F sweeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

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

    def rebased(self, ground_truth: int, detection: int) -> "Overlaps":
        """Return the same pairs with rows counted from `ground_truth` and `detection` on."""
        return Overlaps(self.ground_truth + ground_truth, self.detection + detection, self.value)

    @classmethod
    def concatenate(cls, parts: "Sequence[Overlaps]") -> "Overlaps":
        """Join the pairs of several blocks of sweeps."""
        none = np.zeros(0, np.int64)
        return cls(
            np.concatenate([none, *[part.ground_truth for part in parts]]),
            np.concatenate([none, *[part.detection for part in parts]]),
            np.concatenate([np.zeros(0), *[part.value for part in parts]]),
        )


def same_sweep_pairs(
    ground_truth_offsets: Int64[np.ndarray, " F1"], detection_offsets: Int64[np.ndarray, " F1"]
) -> tuple[Rows, Rows]:
    """Return the rows of all pairs of a ground truth and a detection of one sweep, sorted."""
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
    # Importing torch takes longer than refusing a faulty file, which comes first.
    import torch

    from equilidar.ops.rotated_iou import bev_iou_pairs, iou_3d_pairs

    near = _may_meet(ground_truth, detections, *pairs)
    rows = pairs[0][near], pairs[1][near]
    a, b = torch.from_numpy(ground_truth[rows[0]]), torch.from_numpy(detections[rows[1]])
    area, volume = bev_iou_pairs(a, b).numpy(), iou_3d_pairs(a, b).numpy()
    meets = area > 0
    rows = rows[0][meets], rows[1][meets]
    return Overlaps(*rows, area[meets]), Overlaps(*rows, volume[meets])


def _may_meet(
    ground_truth: Float64[np.ndarray, "G 7"], detections: Float64[np.ndarray, "D 7"], truth_row: Rows, found_row: Rows
) -> Bool[np.ndarray, " P"]:
    """Tell which boxes have a place in space and circumscribed circles that meet: few of all pairs."""
    apart = ground_truth[truth_row, :2] - detections[found_row, :2]
    truth_reach, found_reach = (np.hypot(boxes[:, 3], boxes[:, 4]) / 2 for boxes in (ground_truth, detections))
    truth_exists, found_exists = (np.all(boxes[:, 3:6] > 0, axis=1) for boxes in (ground_truth, detections))
    meets = np.hypot(*apart.T) <= truth_reach[truth_row] + found_reach[found_row]
    return meets & truth_exists[truth_row] & found_exists[found_row]
