"""The protocol against a plain implementation, frame by frame and score by score, and properties that must hold."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.evaluation.matching import COUNTS, IGNORED, OTHER_CLASS, Curve, ap_r11, ap_r40, precision_curve
from equilidar.evaluation.overlaps import Overlaps

MINIMUM = 0.5
NUM_PERFECT = 60


@dataclass
class Frame:
    overlap: np.ndarray  # (ground truths, detections)
    truth: list[int]
    found: list[int]
    scores: list[float]
    excused: list[bool]
    similarity: np.ndarray


def _plain_frame(frame: Frame, threshold: float | None) -> tuple[list[float], int, int, float]:
    """Scores of true positives, false positives, misses, summed similarity; threshold None is the first pass."""
    free = [state != OTHER_CLASS for state in frame.found]
    if threshold is not None:
        free = [is_free and score >= threshold for is_free, score in zip(free, frame.scores, strict=True)]
    candidates = list(free)
    true, missed, weight = [], 0, 0.0
    for g, truth in enumerate(frame.truth):
        if truth == OTHER_CLASS:
            continue
        near = [d for d in range(len(free)) if free[d] and frame.overlap[g, d] > MINIMUM]
        if not near:
            missed += truth == COUNTS
            continue
        if threshold is None:
            choice = max(near, key=lambda d: (frame.scores[d], -d))
        else:
            choice = min(
                near, key=lambda d: (frame.found[d] == IGNORED, -frame.overlap[g, d] * (frame.found[d] == COUNTS), d)
            )
        free[choice] = False
        if truth == COUNTS and frame.found[choice] == COUNTS:
            true.append(frame.scores[choice])
            weight += frame.similarity[g, choice]
    states = zip(candidates, free, frame.found, frame.excused, strict=True)
    false = sum(was and still and state == COUNTS and not excused for was, still, state, excused in states)
    return true, false, missed, weight


def _plain_curves(frames: list[Frame]) -> tuple[list[float], list[float], list[float]]:
    num = sum(frame.truth.count(COUNTS) for frame in frames)
    scores = sorted((score for frame in frames for score in _plain_frame(frame, None)[0]), reverse=True)
    thresholds, wanted = [], 0.0
    for i, score in enumerate(scores):
        here, following = (i + 1) / num, (i + 2) / num
        is_last = i == len(scores) - 1
        if is_last or here >= wanted or abs(following - wanted) >= abs(here - wanted):
            thresholds.append(score)
            wanted += 1 / 40
    precision, similarity, recall = [0.0] * 41, [0.0] * 41, []
    for t, threshold in enumerate(thresholds):
        results = [_plain_frame(frame, threshold) for frame in frames]
        true, false = sum(len(result[0]) for result in results), sum(result[1] for result in results)
        recall.append(true / max(true + sum(result[2] for result in results), 1))
        precision[t] = true / max(true + false, 1)
        similarity[t] = sum(result[3] for result in results) / max(true + false, 1)
    return [max(precision[i:]) for i in range(41)], [max(similarity[i:]) for i in range(41)], recall


def _curve(frames: list[Frame]) -> Curve:
    rows, columns, values, similar = [], [], [], []
    first_truth = first_found = 0
    for frame in frames:
        g, d = np.nonzero(frame.overlap > 0)
        rows.append(g + first_truth)
        columns.append(d + first_found)
        values.append(frame.overlap[g, d])
        similar.append(frame.similarity[g, d])
        first_truth += len(frame.truth)
        first_found += len(frame.found)
    return precision_curve(
        Overlaps(np.concatenate(rows), np.concatenate(columns), np.concatenate(values)),
        MINIMUM,
        np.array([state for frame in frames for state in frame.truth], dtype=np.int8),
        np.array([state for frame in frames for state in frame.found], dtype=np.int8),
        np.array([score for frame in frames for score in frame.scores], dtype=np.float64),
        excused=np.array([excused for frame in frames for excused in frame.excused], dtype=bool),
        similarity=np.concatenate(similar),
    )


@st.composite
def _frames(draw: st.DrawFn) -> list[Frame]:
    """Few distinct scores and overlaps, so that ties are the rule."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_scores = draw(st.sampled_from([2, 5, 1000]))
    frames = []
    for _ in range(draw(st.integers(1, 30))):
        truths, found = rng.integers(0, 8), rng.integers(0, 10)
        overlap = rng.integers(0, 11, (truths, found)) / 10 * (rng.random((truths, found)) < 0.5)
        frames.append(
            Frame(
                overlap,
                rng.choice([COUNTS, IGNORED, OTHER_CLASS], truths, p=[0.7, 0.2, 0.1]).tolist(),
                rng.choice([COUNTS, IGNORED, OTHER_CLASS], found, p=[0.7, 0.2, 0.1]).tolist(),
                (rng.integers(1, num_scores + 1, found) / num_scores).tolist(),
                (rng.random(found) < 0.2).tolist(),
                rng.random((truths, found)),
            )
        )
    return frames


@settings(max_examples=300, deadline=None)
@given(_frames())
def test_agrees_with_a_plain_implementation(frames: list[Frame]) -> None:
    precision, similarity, recall = _plain_curves(frames)
    curve = _curve(frames)
    np.testing.assert_allclose(curve.precision, precision, atol=1e-12)
    np.testing.assert_allclose(curve.similarity, similarity, atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall, atol=1e-12)
    assert curve.num_ground_truth == sum(frame.truth.count(COUNTS) for frame in frames)
    assert curve.num_found == sum(len(_plain_frame(frame, None)[0]) for frame in frames)


def _perfect(num: int, scores: np.ndarray) -> Frame:
    return Frame(np.eye(num), [COUNTS] * num, [COUNTS] * num, scores.tolist(), [False] * num, np.ones((num, num)))


@pytest.mark.parametrize("num", [41, 60, 500])
def test_a_perfect_detector_reaches_100_with_enough_objects(num: int) -> None:
    curve = _curve([_perfect(num, np.linspace(0.9, 0.1, num))])
    assert ap_r40(curve.precision) == pytest.approx(100)
    assert ap_r11(curve.precision) == pytest.approx(100)
    assert curve.found_fraction == 1
    assert (np.diff(curve.recall) > 0).all()


def test_few_objects_cap_the_figure_even_of_a_perfect_detector() -> None:
    # Ten objects give ten thresholds: precision 1 at positions 0 to 9, 0 from there on.
    curve = _curve([_perfect(10, np.linspace(0.9, 0.1, 10))])
    assert curve.precision.tolist() == [1.0] * 10 + [0.0] * 31
    assert ap_r40(curve.precision) == pytest.approx(100 * 9 / 40)
    assert curve.found_fraction == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_only_the_order_of_scores_matters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = _perfect(NUM_PERFECT, rng.random(NUM_PERFECT))
    frame.overlap = rng.random((NUM_PERFECT, NUM_PERFECT)) * (rng.random((NUM_PERFECT, NUM_PERFECT)) < 0.1)
    bent = Frame(**{**vars(frame), "scores": [score**3 for score in frame.scores]})
    np.testing.assert_array_equal(_curve([frame]).precision, _curve([bent]).precision)


def test_half_the_detections_false_at_every_score_gives_half_the_precision() -> None:
    num = NUM_PERFECT
    frame = _perfect(num, np.linspace(0.9, 0.1, num))
    false = Frame(np.zeros((0, num)), [], [COUNTS] * num, frame.scores, [False] * num, np.zeros((0, num)))
    assert ap_r40(_curve([frame, false]).precision) == pytest.approx(50)
    false.excused = [True] * num
    assert ap_r40(_curve([frame, false]).precision) == pytest.approx(100)
    false.found = [OTHER_CLASS] * num
    false.excused = [False] * num
    assert ap_r40(_curve([frame, false]).precision) == pytest.approx(100)


def test_of_two_equal_detections_the_first_is_the_match() -> None:
    """The second is a false positive, and its similarity must not be read."""
    frame = Frame(np.array([[0.8, 0.8]]), [COUNTS], [COUNTS, COUNTS], [0.5, 0.5], [False] * 2, np.array([[0.25, 1.0]]))
    curve = _curve([frame])
    assert curve.precision[0] == 0.5
    assert curve.similarity is not None
    assert curve.similarity[0] == pytest.approx(0.25 / 2)


def test_an_ignored_ground_truth_absorbs_one_detection() -> None:
    overlap = np.array([[0.9, 0.0, 0.0], [0.0, 0.9, 0.9]])
    frame = Frame(overlap, [COUNTS, IGNORED], [COUNTS] * 3, [0.5, 0.9, 0.9], [False] * 3, np.ones((2, 3)))
    # Of the two on the ignored object one is absorbed, the other is false.
    assert _curve([frame]).precision[0] == 0.5


def test_an_ignored_detection_takes_a_ground_truth_only_where_no_other_can() -> None:
    alone = Frame(np.array([[0.9]]), [COUNTS], [IGNORED], [0.9], [False], np.ones((1, 1)))
    counted = _perfect(1, np.array([0.5]))
    curve = _curve([alone, counted])
    assert curve.num_ground_truth == 2
    assert curve.num_found == 1
    assert curve.recall.tolist() == [1.0]  # neither found nor missed
    both = Frame(np.array([[0.9, 0.6]]), [COUNTS], [IGNORED, COUNTS], [0.5, 0.9], [False] * 2, np.ones((1, 2)))
    assert _curve([both]).precision[0] == 1


def test_nothing_to_find_is_zero_not_nan() -> None:
    nothing = Frame(np.zeros((0, 2)), [], [COUNTS] * 2, [0.5, 0.4], [False] * 2, np.zeros((0, 2)))
    curve = _curve([nothing])
    assert (curve.precision == 0).all()
    assert curve.found_fraction == 0
    empty = Frame(np.zeros((3, 0)), [COUNTS] * 3, [], [], [], np.zeros((3, 0)))
    assert _curve([empty]).num_ground_truth == 3
    assert ap_r40(_curve([empty]).precision) == 0
