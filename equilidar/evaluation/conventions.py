"""Tell by comparison with ground truth that detections are in another convention.

Boxes that float or sink by half a height (bottom and center confused), that are mirrored or turned about the vehicle,
whose yaw is negated or offset by a quarter turn, whose length and width are swapped, or that lie in another frame:
each gives plausible files and a mean AP near zero. Every ground truth votes with the detection of its class that is
nearest, seen from above; a convention is named where most votes that can tell the two apart are for it.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.compiled import compiled
from equilidar.evaluation.center_matching import group_offsets

_NEAR = 1.0  # metres within which a detection is taken to be that of an object
_FEWEST = 4  # votes
_MAJORITY = 0.75
_FAR = 250.0  # metres; no LiDAR sees that far
_MIRRORS = {
    "boxes are mirrored left to right (y is negated)": ((1, 0), (0, -1)),
    "boxes are mirrored front to back (x is negated)": ((-1, 0), (0, 1)),
    "boxes are turned by 180 degrees about the vehicle (x and y are negated)": ((-1, 0), (0, -1)),
    "boxes are mirrored (x and y are swapped)": ((0, 1), (1, 0)),
    "boxes are turned by 90 degrees about the vehicle (x forward or y forward)": ((0, -1), (1, 0)),
    "boxes are turned by -90 degrees about the vehicle (x forward or y forward)": ((0, 1), (-1, 0)),
}


@dataclass(slots=True)
class PlacedBoxes:
    """Boxes around the vehicle, for comparison.

    Attributes:
        group: (N,) boxes that may be the same object share it: frame and class.
        box: (N, 7) center x, y, z relative to the vehicle, length, width, height, yaw counter-clockwise from +x.
    """

    group: Int64[np.ndarray, " N"]
    box: Float64[np.ndarray, "N 7"]


def find_conventions(ground_truth: PlacedBoxes, detections: PlacedBoxes) -> tuple[list[str], int]:
    """Return what the detections seem to be instead, and how many pairs of boxes were compared.

    An empty list says that nothing was noticed; with fewer than four pairs nothing can be.
    """
    if len(detections.box) and np.median(np.hypot(*detections.box[:, :2].T)) > _FAR:
        distance = np.median(np.hypot(*detections.box[:, :2].T))
        return [f"boxes are in another frame (half of them lie more than {distance:.0f} m from the vehicle)"], 0
    order = np.argsort(detections.group, kind="stable")
    found = PlacedBoxes(detections.group[order], detections.box[order])
    nearest = _nearest(ground_truth, found, np.eye(2))
    num_near = int((nearest >= 0).sum())
    counts = {name: int((_nearest(ground_truth, found, np.array(m)) >= 0).sum()) for name, m in _MIRRORS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] >= max(_FEWEST, 2 * num_near + 1):
        return [best], counts[best]
    truth, own = ground_truth.box[nearest >= 0], found.box[nearest[nearest >= 0]]
    findings = [_about_height(truth, own), _about_yaw(truth, own), _about_sizes(truth, own)]
    return [finding for finding in findings if finding is not None], num_near


def _nearest(truth: PlacedBoxes, found: PlacedBoxes, moved: np.ndarray) -> Int64[np.ndarray, " G"]:
    """Return the row of the nearest detection of each ground truth within reach, -1 for none."""
    num_groups = 1 + int(max(truth.group.max(initial=-1), found.group.max(initial=-1)))
    offsets = group_offsets(found.group, num_groups)
    return _nearest_in_group(
        truth.box[:, :2], truth.group, found.box[:, :2] @ moved.T.astype(np.float64), offsets, _NEAR
    )


@compiled
def _nearest_in_group(truth, group, found, offsets, reach):
    row = np.full(len(truth), -1, np.int64)
    for g in range(len(truth)):
        least = reach * reach
        for d in range(offsets[group[g]], offsets[group[g] + 1]):
            dx, dy = found[d, 0] - truth[g, 0], found[d, 1] - truth[g, 1]
            if dx * dx + dy * dy < least:
                row[g], least = d, dx * dx + dy * dy
    return row


def _wins(votes: np.ndarray) -> bool:
    return len(votes) >= _FEWEST and float(votes.mean()) >= _MAJORITY


def _about_height(truth: np.ndarray, found: np.ndarray) -> str | None:
    rise = (found[:, 2] - truth[:, 2]) / truth[:, 5]
    if _wins((rise < -0.25) & (rise > -0.75)):
        return "boxes sink by half a height (bottom and center are confused)"
    if _wins((rise > 0.25) & (rise < 0.75)):
        return "boxes float by half a height (bottom and center are confused)"
    if _wins(np.abs(rise) >= 0.75):
        return (
            f"boxes are {np.median(found[:, 2] - truth[:, 2]):+.2f} m off in height (z is counted from another origin)"
        )
    return None


def _about_yaw(truth: np.ndarray, found: np.ndarray) -> str | None:
    plain = _fold(found[:, 6] - truth[:, 6])
    others = {
        "yaw is offset by 90 degrees": _fold(found[:, 6] + math.pi / 2 - truth[:, 6]),
        "yaw is negated (clockwise)": _fold(-found[:, 6] - truth[:, 6]),
        "yaw is negated and offset by 90 degrees": _fold(-found[:, 6] - math.pi / 2 - truth[:, 6]),
    }
    telling = {name: np.abs(plain - other) > math.radians(20) for name, other in others.items()}
    # It must fit, not only fit better: of headings drawn by chance, one of three conventions often does that.
    named = [
        name
        for name, other in others.items()
        if _wins((other < plain)[telling[name]]) and np.median(other[telling[name]]) < math.radians(15)
    ]
    if named:
        return min(named, key=lambda name: float(others[name].mean()))
    turned = np.abs(np.remainder(found[:, 6] - truth[:, 6] + math.pi, 2 * math.pi) - math.pi)
    aligned = plain < math.pi / 4
    opposed = turned[aligned] > math.pi / 2
    if _wins(aligned) and _wins(opposed) and opposed.mean() >= 0.9:
        return "yaw is offset by 180 degrees (headings are reversed)"
    return None


def _fold(angle: np.ndarray) -> np.ndarray:
    """Return the angle between two lines, 0 to pi / 2."""
    return np.abs(np.remainder(angle + math.pi / 2, math.pi) - math.pi / 2)


def _about_sizes(truth: np.ndarray, found: np.ndarray) -> str | None:
    own, other = (np.log(boxes[:, 3] / boxes[:, 4]) for boxes in (truth, found))
    telling = np.abs(own) > math.log(1.3)
    if _wins((np.abs(other + own) < np.abs(other - own))[telling]):
        return "length and width are swapped"
    return None
