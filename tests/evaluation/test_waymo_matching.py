"""Against SciPy's assignment, run anew at each cutoff."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from equilidar.evaluation.overlaps import Overlaps
from equilidar.evaluation.waymo_matching import count_from_levels, count_matches, reached_levels

CUTOFFS = 5


def _pairs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (ground truths, detections), 0 where a pair cannot match, in crowds; and levels."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 1, (int(rng.integers(1, 7)), int(rng.integers(1, 9))))
    weight[rng.random(weight.shape) < rng.uniform(0.2, 0.8)] = 0
    return np.round(weight, 6), rng.integers(-1, CUTOFFS, weight.shape[1])


@given(seed=st.integers(0, 1_000_000))
@settings(max_examples=150, deadline=None)
def test_best_sum_at_every_cutoff(seed: int) -> None:
    weight, level = _pairs(seed)
    truth, found = np.nonzero(weight)
    pairs = Overlaps(truth, found, weight[truth, found])
    values = np.stack([np.ones(len(truth)), pairs.value], 1)
    got = count_matches(pairs, level, values, len(weight), CUTOFFS)
    for cutoff in range(CUTOFFS):
        active = weight * (level >= cutoff)
        rows, columns = linear_sum_assignment(active, maximize=True)
        chosen = active[rows, columns]
        # Weights are distinct at random, so that the best matching is one.
        assert got[cutoff] == pytest.approx([(chosen > 0).sum(), chosen.sum()])


def test_a_later_detection_may_move_an_earlier_match() -> None:
    # The surer detection takes ground truth 0 alone; with the second one it gives way to ground truth 1.
    pairs = Overlaps(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.8, 0.9, 0.7]))
    got = count_matches(pairs, np.array([3, 1]), pairs.value[:, None], 2, CUTOFFS)
    assert got[:, 0] == pytest.approx([1.6, 1.6, 0.8, 0.8, 0])


def test_no_pairs() -> None:
    none = np.zeros(0, np.int64)
    assert not count_matches(Overlaps(none, none, np.zeros(0)), none, np.zeros((0, 3)), 0, CUTOFFS).any()


def test_levels_are_compared_in_single_precision() -> None:
    cutoffs = np.arange(101) * 0.01
    score = np.array([0.0, 0.07, 0.0699, 1.0, 0.29], np.float32)
    assert reached_levels(score, cutoffs).tolist() == [0, 7, 6, 100, 29]
    assert reached_levels(np.array([-0.1]), cutoffs).tolist() == [-1]


def test_counting_from_levels() -> None:
    level, counts = np.array([-1, 0, 2, 2, 4]), np.array([True, True, True, False, True])
    assert count_from_levels(level, counts, CUTOFFS).tolist() == [3, 2, 2, 1, 1]
