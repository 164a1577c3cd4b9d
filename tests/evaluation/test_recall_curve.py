"""Sampling by hand."""

import numpy as np
import pytest

from equilidar.evaluation.recall_curve import RECALLS, sample_at_recalls


def test_lines_between_and_nothing_beyond() -> None:
    sampled = sample_at_recalls(np.array([0.25, 0.5]), np.array([1.0, 0.5]))
    assert sampled[np.isclose(RECALLS, 0.1)] == pytest.approx(1.0)
    assert sampled[np.isclose(RECALLS, 0.4)] == pytest.approx(0.7)
    assert sampled[np.isclose(RECALLS, 0.5)] == pytest.approx(0.5)
    assert not sampled[RECALLS > 0.505].any()
