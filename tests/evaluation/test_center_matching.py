"""Against plain loops over sweeps, and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.evaluation.center_matching import group_offsets, match_nearest_free, nearest_ground_truth

THRESHOLDS = (0.5, 2.0)


def _set(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centers on a coarse grid, so that distances tie; ground truth sorted by group."""
    rng = np.random.default_rng(seed)
    groups = int(rng.integers(1, 4))
    truth_group = np.sort(rng.integers(0, groups, int(rng.integers(0, 12))))
    found_group = rng.integers(0, groups, int(rng.integers(0, 15)))
    truth, found = (rng.integers(-3, 4, (len(group), 3)) / 2 for group in (truth_group, found_group))
    return truth, truth_group, found, found_group


@given(seed=st.integers(0, 100_000))
@settings(max_examples=100, deadline=None)
def test_nearest_free_against_plain_loops(seed: int) -> None:
    truth, truth_group, found, found_group = _set(seed)
    offsets = group_offsets(truth_group, 4)
    got = match_nearest_free(truth[:, :2], offsets, found[:, :2], found_group, np.array(THRESHOLDS))
    for threshold, matches in zip(THRESHOLDS, got, strict=True):
        taken: set[int] = set()
        for d in range(len(found)):
            free = [g for g in range(len(truth)) if truth_group[g] == found_group[d] and g not in taken]
            best = min(free, key=lambda g, d=d: np.linalg.norm(truth[g, :2] - found[d, :2]), default=None)
            expected = -1
            if best is not None and np.linalg.norm(truth[best, :2] - found[d, :2]) < threshold:
                expected = best
                taken.add(best)
            assert matches[d] == expected


@given(seed=st.integers(0, 100_000))
@settings(max_examples=100, deadline=None)
def test_nearest_once_against_plain_loops(seed: int) -> None:
    truth, truth_group, found, found_group = _set(seed)
    got, distance = nearest_ground_truth(truth, group_offsets(truth_group, 4), found, found_group)
    taken: set[int] = set()
    for d in range(len(found)):
        own = [g for g in range(len(truth)) if truth_group[g] == found_group[d]]
        best = min(own, key=lambda g, d=d: np.linalg.norm(truth[g] - found[d]), default=None)
        if best is None or best in taken:
            assert got[d] == -1 and np.isinf(distance[d])
        else:
            assert got[d] == best and distance[d] == pytest.approx(np.linalg.norm(truth[best] - found[d]))
            taken.add(best)
