"""Integration by hand, and what the protocol makes of small scenes."""

import numpy as np
import pytest

from equilidar.evaluation.waymo import average_precision, evaluate_waymo, prepare_ground_truth, waymo_curves
from equilidar.evaluation.waymo_boxes import WaymoBoxes


def _boxes(*rows: tuple, frames: tuple[str, ...] = ("a",)) -> WaymoBoxes:
    """Rows: frame, x, y, heading, score, difficulty, points, speed, in a zone without labels."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 9)
    box = np.zeros((len(table), 7))
    box[:, 0], box[:, 1], box[:, 3:6], box[:, 6] = table[:, 1], table[:, 2], (4, 2, 1.5), table[:, 3]
    frame, difficulty, points = (table[:, column].astype(np.int64) for column in (0, 5, 6))
    ones = np.ones(len(table), np.int64)
    score, zone = table[:, 4].astype(np.float32), table[:, 8] > 0
    return WaymoBoxes(frames, frame, ones, box, score, difficulty, points, table[:, 7], zone)


def _truth(x: float, y: float = 0.0, *, difficulty: int = 1, points: int = 9, speed: float = 0.0) -> tuple:
    return (0, x, y, 0.0, 1.0, difficulty, points, speed, 0)


def _found(x: float, y: float = 0.0, score: float = 0.5, *, heading: float = 0.0, zone: int = 0) -> tuple:
    return (0, x, y, heading, score, 0, 0, 0.0, zone)


def _vehicle(truth: WaymoBoxes, found: WaymoBoxes, part: str = "OBJECT_TYPE_TYPE_VEHICLE") -> list[float]:
    figures = evaluate_waymo(waymo_curves(truth, found))
    return [figures[metric][f"{part}_LEVEL_{level}"] for metric in ("AP", "APH") for level in (1, 2)]


@pytest.mark.parametrize(
    ("precision", "recall", "area"),
    [
        ([0.0], [0.0], 0.0),
        ([1.0], [1.0], 1.0),
        ([1.0, 0.5], [0.0, 0.5], 0.25),
        # From 0.5 down to 0.1 in steps of 0.05 at precision 0.5, the last one a slope up to 1, which then goes on.
        ([1.0, 0.5], [0.1, 0.5], 0.35 * 0.5 + 0.05 * 0.75 + 0.1),
        # A gap of no more than 0.05 is a slope.
        ([1.0, 0.5], [0.46, 0.5], 0.04 * 0.75 + 0.46),
        # The best precision of a recall counts, and precision may not fall toward low recall.
        ([0.2, 0.6, 0.4], [0.5, 0.5, 0.52], 0.02 * 0.5 + 0.5 * 0.6),
        ([0.3, 0.6], [0.48, 0.5], 0.5 * 0.6),
    ],
)
def test_average_precision_by_hand(precision: list[float], recall: list[float], area: float) -> None:
    assert average_precision(np.array(precision), np.array(recall)) == pytest.approx(area)


def test_a_perfect_detection_and_one_that_looks_backward() -> None:
    truth = _boxes(_truth(10), _truth(20))
    assert _vehicle(truth, _boxes(_found(10), _found(20))) == pytest.approx([1, 1, 1, 1])
    turned = _boxes(_found(10), _found(20, heading=np.pi / 2))
    # A quarter turn of a 4 x 2 box overlaps by a third only: no match at all.
    assert _vehicle(truth, turned)[0] < 0.75
    reversed_ = _boxes(_found(10), _found(20, heading=3 * np.pi))
    assert _vehicle(truth, reversed_) == pytest.approx([1, 1, 0.5, 0.5])


def test_level_1_needs_not_find_hard_objects_and_may() -> None:
    truth = _boxes(_truth(10), _truth(20, difficulty=2))
    assert _vehicle(truth, _boxes(_found(10)))[:2] == pytest.approx([1.0, 0.5])
    assert _vehicle(truth, _boxes(_found(20)))[0] == pytest.approx(0.5)


def test_zones_without_labels_excuse_what_matches_nothing() -> None:
    truth = _boxes(_truth(10))
    assert _vehicle(truth, _boxes(_found(10, score=0.5), _found(30, score=0.9)))[0] == pytest.approx(0.5)
    assert _vehicle(truth, _boxes(_found(10, score=0.5), _found(30, score=0.9, zone=1)))[0] == pytest.approx(1.0)


def test_range_sorts_both_sides_and_speed_only_ground_truth() -> None:
    truth, found = _boxes(_truth(29.9, speed=2.0)), _boxes(_found(30.1))
    assert _vehicle(truth, found)[0] == pytest.approx(1.0)
    assert _vehicle(truth, found, "RANGE_TYPE_VEHICLE_[0, 30)")[0] == 0
    assert _vehicle(truth, found, "VELOCITY_TYPE_VEHICLE_MEDIUM")[0] == pytest.approx(1.0)
    both = _boxes(_truth(10, speed=2.0), _truth(20, speed=0.0))
    doubled = _boxes(_found(10, score=0.5), _found(21.5, score=0.9))
    # The second one matches nothing and overlaps the standing object most: it is no fault of the moving ones.
    assert _vehicle(both, doubled, "VELOCITY_TYPE_VEHICLE_MEDIUM")[0] == pytest.approx(1.0)
    assert _vehicle(both, doubled, "VELOCITY_TYPE_VEHICLE_STATIONARY")[0] == 0


def test_difficulty_follows_from_points_where_it_is_not_labelled() -> None:
    rows = [_truth(10, difficulty=d, points=p) for d, p in ((0, 5), (0, 6), (2, 50), (1, 1), (0, 0))]
    assert prepare_ground_truth(_boxes(*rows)).difficulty.tolist() == [2, 1, 2, 1]


def test_ground_truth_without_point_counts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"none of the 2 ground truths has num_lidar_points_in_box above 0"):
        prepare_ground_truth(_boxes(_truth(1, points=0), _truth(9, points=0)))


def test_order_of_rows_and_frames_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    truth = _boxes(
        *[(f, *rng.uniform(-40, 40, 2), 0, 1, 1, 9, 0, 0) for f in range(3) for _ in range(8)], frames=tuple("abc")
    )
    rows = np.repeat(np.arange(24), 2)
    found = truth.select(rows)
    found.box = found.box + rng.normal(0, 0.2, found.box.shape) * [1, 1, 0, 0, 0, 0, 1]
    found.score = rng.uniform(0, 1, 48).astype(np.float32)
    shuffled = rng.permutation(48)
    other = found.select(shuffled)
    other.frame, other.frames = 2 - other.frame, tuple("cba")
    assert _vehicle(truth, found) == pytest.approx(_vehicle(truth.select(rng.permutation(24)), other))
