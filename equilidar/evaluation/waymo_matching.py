"""Best matching of detections and ground truth at every score cutoff, as the Waymo metrics have it (TYPE_HUNGARIAN).

At each cutoff the detections with at least that score are matched anew so that the sum of overlaps is greatest. The
graph of pairs that overlap enough falls into small components. Within one, detections join in falling order of score:
inserting one row into the Hungarian method (Kuhn 1955) leaves the matching best for the rows so far, so one pass
yields the best matching at every cutoff.

Legend: G ground truths, D detections, P pairs, C cutoffs.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from equilidar.compiled import compiled
from equilidar.evaluation.overlaps import Overlaps

_WEIGHT = 1_000_000
"""Overlaps are compared as multiples of a millionth, as in the official tool."""

Counts = Float64[np.ndarray, " C"]
Rows = Int64[np.ndarray, " P"]


def count_matches(
    pairs: Overlaps,
    level: Int64[np.ndarray, " D"],
    pair_value: Float64[np.ndarray, "P K"],
    num_ground_truth: int,
    num_cutoffs: int,
) -> Float64[np.ndarray, "C K"]:
    """Return the sum of `pair_value` over the matched pairs at each cutoff.

    Args:
        pairs: those that overlap enough to match.
        level: index of the highest cutoff that each detection reaches, -1 for none.
        pair_value: what is summed up, as (1, accuracy of the heading, ...).
        num_ground_truth: number of ground truths.
        num_cutoffs: number of cutoffs.
    """
    active = level[pairs.detection] >= 0
    pairs, pair_value = pairs.select(active), pair_value[active]
    root = _components(pairs.ground_truth, pairs.detection + num_ground_truth, num_ground_truth + len(level))
    component = root[pairs.ground_truth]
    # Within a component the detections join from the highest cutoff on.
    order = np.lexsort((pairs.detection, -level[pairs.detection], component))
    starts = np.concatenate([[0], np.nonzero(np.diff(component[order]))[0] + 1, [len(order)]])
    total = np.zeros((num_cutoffs, pair_value.shape[1]))
    if len(order):
        weight = np.rint(pairs.value * _WEIGHT).astype(np.int64)
        row = _rank_within(component, -level[pairs.detection], pairs.detection)
        column = _rank_within(component, pairs.ground_truth, pairs.ground_truth)
        reached = level[pairs.detection]
        _count(row[order], column[order], weight[order], pair_value[order], reached[order], starts, total)
    return total


def _rank_within(component: Rows, first: Rows, second: Rows) -> Rows:
    """Number the distinct (first, second) of each component from 0."""
    order = np.lexsort((second, first, component))
    is_new = (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    starts = np.concatenate([[True], np.diff(component[order]) != 0])
    number = np.cumsum(np.concatenate([[True], is_new | starts[1:]])) - 1
    rank = np.empty(len(order), np.int64)
    rank[order] = number - number[starts][np.cumsum(starts) - 1]
    return rank


@compiled
def _components(a, b, num_nodes):
    """Return a representative of the component of each node of the graph with edges a[i]-b[i]."""
    parent = np.arange(num_nodes)
    for i in range(len(a)):
        x, y = a[i], b[i]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        else:
            parent[x] = y
    for node in range(num_nodes):
        root = node
        while parent[root] != root:
            root = parent[root]
        parent[node] = root
    return parent


@compiled
def _count(row, column, weight, value, level, starts, total):
    for c in range(len(starts) - 1):
        first, last = starts[c], starts[c + 1]
        if last - first == 1:
            for k in range(value.shape[1]):
                for cutoff in range(level[first] + 1):
                    total[cutoff, k] += value[first, k]
            continue
        num_rows, num_truths = 1, 1
        for p in range(first, last):
            num_rows = max(num_rows, row[p] + 1)
            num_truths = max(num_truths, column[p] + 1)
        # A detection may stay alone: one column of weight 0 for each.
        num_columns = num_truths + num_rows
        gain = np.zeros((num_rows, num_columns), np.int64)
        pair = np.full((num_rows, num_columns), -1, np.int64)
        row_level = np.full(num_rows + 1, -1, np.int64)
        for p in range(first, last):
            row_level[row[p]] = level[p]
            gain[row[p], column[p]] = weight[p]
            pair[row[p], column[p]] = p
        owner = np.full(num_columns + 1, -1, np.int64)
        of_row, of_column = np.zeros(num_rows, np.int64), np.zeros(num_columns + 1, np.int64)
        for r in range(num_rows):
            _insert(r, gain, owner, of_row, of_column)
            if row_level[r] == row_level[r + 1]:
                continue
            for t in range(num_truths):
                p = pair[owner[t], t] if owner[t] >= 0 else -1
                if p >= 0:
                    for k in range(value.shape[1]):
                        for cutoff in range(row_level[r + 1] + 1, row_level[r] + 1):
                            total[cutoff, k] += value[p, k]


@compiled
def _insert(row, gain, owner, of_row, of_column):
    """Give `row` a column by the shortest augmenting path; `of_row` and `of_column` are the dual variables."""
    num_columns = gain.shape[1]
    far = np.int64(1) << 60
    least = np.full(num_columns, far, np.int64)
    before = np.full(num_columns, -1, np.int64)
    used = np.zeros(num_columns + 1, np.bool_)
    current = num_columns  # a column that stands for none, which owns the new row
    owner[current] = row
    while owner[current] >= 0:
        used[current] = True
        step, following = far, -1
        for column in range(num_columns):
            if used[column]:
                continue
            slack = -gain[owner[current], column] - of_row[owner[current]] - of_column[column]
            if slack < least[column]:
                least[column] = slack
                before[column] = current
            if least[column] < step:
                step, following = least[column], column
        for column in range(num_columns + 1):
            if used[column]:
                of_row[owner[column]] += step
                of_column[column] -= step
            elif column < num_columns:
                least[column] -= step
        current = following
    while current != num_columns:
        owner[current] = owner[before[current]]
        current = before[current]
    owner[num_columns] = -1


def reached_levels(score: np.ndarray, cutoffs: np.ndarray) -> Int64[np.ndarray, " D"]:
    """Return the index of the highest cutoff that each score reaches, -1 for none; both in single precision."""
    return np.searchsorted(cutoffs.astype(np.float32), score.astype(np.float32), side="right") - 1


def count_from_levels(level: Int64[np.ndarray, " D"], counts: Bool[np.ndarray, " D"], num_cutoffs: int) -> Counts:
    """Return how many of the marked detections have at least the score of each cutoff."""
    at = np.bincount(level[counts & (level >= 0)], minlength=num_cutoffs)
    return np.cumsum(at[::-1])[::-1].astype(np.float64)
