"""Match boxes by the distance of their centers, two ways: nuScenes' greedy one and Argoverse 2's nearest one.

Both go through the detections of falling score. nuScenes lets a detection take the nearest ground truth that is still
free; Argoverse 2 ties each detection to its nearest ground truth, taken or not, and keeps the first of each.

Legend: G ground truths, D detections, T thresholds. Boxes that may match share a group (sweep, and class).
"""

import math

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.compiled import compiled

Rows = Int64[np.ndarray, " D"]


def group_offsets(group: Int64[np.ndarray, " N"], num_groups: int) -> Int64[np.ndarray, " G1"]:
    """Return where each group starts in rows that are sorted by group; one more entry ends the last."""
    return np.searchsorted(group, np.arange(num_groups + 1))


def match_nearest_free(
    ground_truth_xy: Float64[np.ndarray, "G 2"],
    ground_truth_offsets: Int64[np.ndarray, " O"],
    detection_xy: Float64[np.ndarray, "D 2"],
    detection_group: Rows,
    thresholds: Float64[np.ndarray, " T"],
) -> Int64[np.ndarray, "T D"]:
    """Return the ground truth that each detection takes at each threshold, -1 for none.

    Args:
        ground_truth_xy: centers seen from above, sorted by group; of equal distances the first one counts.
        ground_truth_offsets: rows of each group, from `group_offsets`.
        detection_xy: centers in the order in which detections choose.
        detection_group: group of each detection.
        thresholds: a match is nearer than this, metres.
    """
    return _nearest_free(ground_truth_xy, ground_truth_offsets, detection_xy, detection_group, thresholds)


def nearest_ground_truth(
    ground_truth: Float64[np.ndarray, "G 3"],
    ground_truth_offsets: Int64[np.ndarray, " O"],
    detection: Float64[np.ndarray, "D 3"],
    detection_group: Rows,
) -> tuple[Rows, Float64[np.ndarray, " D"]]:
    """Return for each detection the nearest ground truth that no earlier detection has as its nearest.

    A detection whose nearest ground truth is taken gets none, however near the second one is.

    Args:
        ground_truth: centers, sorted by group.
        ground_truth_offsets: rows of each group, from `group_offsets`.
        detection: centers in the order in which detections choose.
        detection_group: group of each detection.

    Returns:
        row of the ground truth (-1 for none) and its distance (inf for none).
    """
    return _nearest_once(ground_truth, ground_truth_offsets, detection, detection_group)


@compiled
def _nearest_free(truth, offsets, found, group, thresholds):
    match = np.full((len(thresholds), len(found)), -1, np.int64)
    for t in range(len(thresholds)):
        taken = np.zeros(len(truth), np.bool_)
        for d in range(len(found)):
            best, nearest = -1, np.inf
            for g in range(offsets[group[d]], offsets[group[d] + 1]):
                if taken[g]:
                    continue
                dx, dy = found[d, 0] - truth[g, 0], found[d, 1] - truth[g, 1]
                distance = math.sqrt(dx * dx + dy * dy)
                if distance < nearest:
                    best, nearest = g, distance
            if nearest < thresholds[t]:
                taken[best] = True
                match[t, d] = best
    return match


@compiled
def _nearest_once(truth, offsets, found, group):
    match = np.full(len(found), -1, np.int64)
    distances = np.full(len(found), np.inf)
    taken = np.zeros(len(truth), np.bool_)
    for d in range(len(found)):
        best, nearest = -1, np.inf
        for g in range(offsets[group[d]], offsets[group[d] + 1]):
            dx, dy, dz = found[d, 0] - truth[g, 0], found[d, 1] - truth[g, 1], found[d, 2] - truth[g, 2]
            distance = math.sqrt(dx * dx + dy * dy + dz * dz)
            if distance < nearest:
                best, nearest = g, distance
        if best >= 0 and not taken[best]:
            taken[best] = True
            match[d], distances[d] = best, nearest
    return match, distances
