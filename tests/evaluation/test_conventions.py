"""Each convention is named, for every number of boxes and any noise that a detector has; sound detections pass."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from equilidar.evaluation.conventions import PlacedBoxes, find_conventions


def _boxes(rng: np.random.Generator, num: int) -> np.ndarray:
    place = rng.uniform([3, -20, -1], [40, 35, 1], (num, 3))
    return np.column_stack([place, rng.uniform([3.5, 1.5, 1.4], [5, 2, 2], (num, 3)), rng.uniform(0.3, 1.2, num)])


def _noisy(rng: np.random.Generator, boxes: np.ndarray, spread: float) -> np.ndarray:
    noise = rng.normal(0, 1, boxes.shape) * [0.2, 0.2, 0.1, 0.1, 0.05, 0.05, 0.1]
    return boxes + spread * noise


def _find(truth: np.ndarray, found: np.ndarray) -> list[str]:
    group = np.arange(len(truth)) % 3
    findings, _ = find_conventions(PlacedBoxes(group, truth), PlacedBoxes(group, found))
    return findings


CHANGES = {
    "sink by half a height": lambda b: b - np.eye(7)[2] * b[:, 5:6] / 2,
    "float by half a height": lambda b: b + np.eye(7)[2] * b[:, 5:6] / 2,
    "off in height": lambda b: b + np.array([0, 0, 2.4, 0, 0, 0, 0]),
    "mirrored left to right": lambda b: b * [1, -1, 1, 1, 1, 1, -1],
    "mirrored front to back": lambda b: np.column_stack([-b[:, 0], b[:, 1:6], math.pi - b[:, 6]]),
    "turned by 180 degrees": lambda b: b * [-1, -1, 1, 1, 1, 1, 1] + [0, 0, 0, 0, 0, 0, math.pi],
    "x and y are swapped": lambda b: np.column_stack([b[:, [1, 0]], b[:, 2:6], math.pi / 2 - b[:, 6]]),
    "turned by 90 degrees": lambda b: np.column_stack([b[:, 1], -b[:, 0], b[:, 2:6], b[:, 6] - math.pi / 2]),
    "turned by -90 degrees": lambda b: np.column_stack([-b[:, 1], b[:, 0], b[:, 2:6], b[:, 6] + math.pi / 2]),
    "offset by 90 degrees": lambda b: b + np.array([0, 0, 0, 0, 0, 0, math.pi / 2]),
    "yaw is negated (clockwise)": lambda b: b * [1, 1, 1, 1, 1, 1, -1],
    "negated and offset by 90 degrees": lambda b: (
        b * [1, 1, 1, 1, 1, 1, -1] - np.array([0, 0, 0, 0, 0, 0, math.pi / 2])
    ),
    "headings are reversed": lambda b: b + np.array([0, 0, 0, 0, 0, 0, math.pi]),
    "length and width are swapped": lambda b: b[:, [0, 1, 2, 4, 3, 5, 6]],
    "in another frame": lambda b: b + np.array([4000.0, 900, 0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("name", CHANGES)
@given(seed=st.integers(0, 1000), num=st.integers(24, 60))
@settings(max_examples=10, deadline=None)
def test_a_convention_is_named_and_no_other_one(name: str, seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    truth = _boxes(rng, num)
    findings = _find(truth, CHANGES[name](_noisy(rng, truth, 0.5)))
    assert len(findings) == 1 and name in findings[0]


@given(seed=st.integers(0, 1000), num=st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_sound_detections_pass(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    truth = _boxes(rng, num)
    assert _find(truth, _noisy(rng, truth, 1.0)) == []


@given(seed=st.integers(0, 1000))
@example(seed=501)
@settings(max_examples=20, deadline=None)
def test_headings_that_nobody_can_tell_are_no_convention(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = _boxes(rng, 40)
    found = _noisy(rng, truth, 1.0)
    found[:, 6] = rng.uniform(-math.pi, math.pi, 40)
    assert _find(truth, found) == []


def test_two_at_once_are_both_named() -> None:
    truth = _boxes(np.random.default_rng(0), 30)
    found = CHANGES["length and width are swapped"](CHANGES["sink by half a height"](truth))
    assert len(_find(truth, found)) == 2


def test_too_few_boxes_tell_nothing() -> None:
    truth = _boxes(np.random.default_rng(0), 3)
    assert _find(truth, CHANGES["sink by half a height"](truth)) == []
    assert find_conventions(PlacedBoxes(np.zeros(0, np.int64), truth[:0]), PlacedBoxes(np.arange(3), truth)) == ([], 0)
