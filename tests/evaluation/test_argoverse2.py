"""The protocol on small sweeps, worked out by hand."""

import math

import numpy as np
import pytest

from equilidar.evaluation.argoverse2 import Inside, evaluate_argoverse2
from equilidar.evaluation.argoverse2_boxes import COMPETITION_CATEGORIES, Argoverse2Boxes
from equilidar.formats.argoverse2_annotations import CATEGORIES

CAR = CATEGORIES.index("REGULAR_VEHICLE")


def _boxes(*rows: tuple[float, ...], sweeps: tuple = (("log", 1),)) -> Argoverse2Boxes:
    """Rows: sweep, x, y, yaw, score, points."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    num = len(table)
    center, size, rotation = np.zeros((num, 3)), np.tile([4.0, 2.0, 1.5], (num, 1)), np.zeros((num, 4))
    center[:, :2] = table[:, 1:3]
    rotation[:, 0], rotation[:, 3] = np.cos(table[:, 3] / 2), np.sin(table[:, 3] / 2)
    sweep, points = table[:, 0].astype(np.int64), table[:, 5].astype(np.int64)
    return Argoverse2Boxes(
        sweeps, sweep, np.full(num, CAR), center, size, rotation, table[:, 4], points, np.arange(num)
    )


def _truth(x: float, y: float = 0.0, *, yaw: float = 0.0, points: int = 5, sweep: int = 0) -> tuple[float, ...]:
    return (sweep, x, y, yaw, math.nan, points)


def _found(x: float, y: float = 0.0, *, score: float = 0.5, yaw: float = 0.0, sweep: int = 0) -> tuple[float, ...]:
    return (sweep, x, y, yaw, score, -1)


def _car(truth: Argoverse2Boxes, found: Argoverse2Boxes) -> list[float]:
    return evaluate_argoverse2(truth, found, categories=["REGULAR_VEHICLE"]).metrics["REGULAR_VEHICLE"]


def test_perfect_and_nothing() -> None:
    truth = _boxes(_truth(10), _truth(20))
    assert _car(truth, _boxes(_found(10), _found(20))) == pytest.approx([1, 0, 0, 0, 1])
    assert _car(truth, _boxes()) == pytest.approx([0, 2, 1, math.pi, 0])
    assert _car(_boxes(_truth(10, points=0)), _boxes(_found(10))) == pytest.approx([0, 2, 1, math.pi, 0])


def test_a_later_nearer_detection_of_the_same_object_is_false() -> None:
    truth = _boxes(_truth(10))
    surer, nearer = _found(13, score=0.9), _found(10, score=0.1)
    result = evaluate_argoverse2(truth, _boxes(surer, nearer), categories=["REGULAR_VEHICLE"])
    # The surer one is the object's only candidate: true at 4 m alone.
    assert result.true_positives["REGULAR_VEHICLE"] == {"0.5": 0, "1.0": 0, "2.0": 0, "4.0": 1}


def test_errors_are_means_over_matches_within_2_m() -> None:
    truth = _boxes(_truth(10), _truth(30, yaw=3.0))
    found = _boxes(_found(10.3, yaw=0.2), _found(31, yaw=-3.0))
    _, distance, scale, turned, _ = _car(truth, found)
    assert (distance, scale) == pytest.approx((0.65, 0.0))
    # From 3 to -3 it is 2 pi - 6 the short way round.
    assert turned == pytest.approx((0.2 + 2 * math.pi - 6) / 2)


def test_only_the_hundred_best_in_range_of_a_sweep_count() -> None:
    far = [_found(200 + i, score=0.99) for i in range(5)]
    clutter = [_found(50 + 0.1 * i, 40, score=0.9 - 0.001 * i) for i in range(100)]
    truth = _boxes(_truth(10), _truth(10, sweep=1), sweeps=(("log", 1), ("log", 2)))
    found = _boxes(*far, *clutter, _found(10, score=0.1), _found(10, score=0.05, sweep=1), sweeps=truth.sweeps)
    result = evaluate_argoverse2(truth, found, categories=["REGULAR_VEHICLE"])
    assert result.detections.sum() == 101 and not result.detections[105] and result.detections[106]
    assert result.true_positives["REGULAR_VEHICLE"]["0.5"] == 1


def test_the_map_prunes_after_the_hundred_best_are_chosen() -> None:
    truth = _boxes(_truth(10), _truth(20))
    found = _boxes(*[_found(60, 0.1 * i, score=0.9) for i in range(100)], _found(10, score=0.1))
    inside = Inside(np.array([True, False]), np.arange(101) == 100)
    result = evaluate_argoverse2(truth, found, inside)
    assert not result.detections.any() and result.ground_truth.tolist() == [True, False]


def test_sweeps_of_one_side_only_are_evaluated() -> None:
    truth = _boxes(_truth(10), sweeps=(("log", 1),))
    found = _boxes(_found(10, score=0.9), sweeps=(("log", 2),))
    result = evaluate_argoverse2(truth, found)
    assert result.detections.all() and result.ground_truth.all()
    assert result.metrics["REGULAR_VEHICLE"][0] == 0


def test_means_are_over_the_chosen_categories() -> None:
    truth, found = _boxes(_truth(10)), _boxes(_found(10))
    metrics = evaluate_argoverse2(truth, found).metrics
    assert len(metrics) == len(COMPETITION_CATEGORIES) + 1
    assert metrics["AVERAGE_METRICS"][0] == pytest.approx(1 / 26)
    assert metrics["AVERAGE_METRICS"][1] == pytest.approx(25 * 2 / 26)
    with pytest.raises(ValueError, match="categories names CAR"):
        evaluate_argoverse2(truth, found, categories=["CAR"])
