"""The pitfalls of the official protocol, one at a time."""

import numpy as np
import pytest

from equilidar.evaluation.kitti import KittiEvaluation, detection_states, ground_truth_states
from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable
from equilidar.evaluation.matching import COUNTS, IGNORED, OTHER_CLASS, Curve

EASY, MODERATE, HARD = range(3)


def _row(
    name: str,
    place: int = 0,
    *,
    score: float = np.nan,
    height: float = 60.0,
    truncated: float = 0.0,
    occluded: int = 0,
    alpha: float = 0.0,
) -> tuple[int, list[float]]:
    """An object at one of several places that lie apart, in the image and in space."""
    left = 100.0 * place
    box = [left, 100.0, left + 50, 100.0 + height]
    return KITTI_CLASSES.index(name), [
        truncated, occluded, alpha, *box, 1.5, 1.6, 4.0, 10.0 * place, 1.7, 20.0, 0.0, score,
    ]  # fmt: skip


def _table(*rows: tuple[int, list[float]]) -> KittiTable:
    kind, values = [row[0] for row in rows], [row[1] for row in rows]
    offsets = np.array([0, len(rows)])
    return KittiTable(("0",), offsets, np.array(kind, dtype=np.int64), np.array(values).reshape(-1, 15))


def _curve(truth: KittiTable, found: KittiTable, metric: str = "3d", name: str = "car", level: int = MODERATE) -> Curve:
    return KittiEvaluation(truth, found).curve(name, metric, level, 0.5)


def test_difficulty_follows_height_occlusion_and_truncation() -> None:
    rows = [
        _row("car", height=41),
        _row("car", height=40),  # not above the limit
        _row("car", height=25),
        _row("car", occluded=1),
        _row("car", occluded=2),
        _row("car", occluded=3),
        _row("car", truncated=0.16),
        _row("car", truncated=0.31),
        _row("car", truncated=0.51),
    ]
    counts = [(ground_truth_states(_table(*rows), "car", level) == COUNTS).tolist() for level in (EASY, MODERATE, HARD)]
    assert counts[EASY] == [True, False, False, False, False, False, False, False, False]
    assert counts[MODERATE] == [True, True, False, True, False, False, True, False, False]
    assert counts[HARD] == [True, True, False, True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("name", "neighbour", "other"), [("car", "van", "truck"), ("pedestrian", "person_sitting", "cyclist")]
)
def test_neighbouring_classes_are_ignored_others_are_not(name: str, neighbour: str, other: str) -> None:
    table = _table(_row(name), _row(neighbour), _row(other), _row("dontcare"))
    assert ground_truth_states(table, name, EASY).tolist() == [COUNTS, IGNORED, OTHER_CLASS, OTHER_CLASS]
    taken = _table(_row(name, 0, score=0.5), _row(name, 1, score=0.9))
    assert _curve(_table(_row(name, 0), _row(neighbour, 1)), taken, name=name).precision[0] == 1
    assert _curve(_table(_row(name, 0), _row(other, 1)), taken, name=name).precision[0] == 0.5


def test_a_low_detection_is_ignored_whatever_its_class_by_whole_pixels() -> None:
    table = _table(*[_row(name, height=h) for name in ("car", "cyclist") for h in (24.9, 25.0, 25.9, 40.0)])
    assert detection_states(table, "car", MODERATE).tolist() == [IGNORED, 0, 0, 0, IGNORED] + [OTHER_CLASS] * 3
    assert detection_states(table, "car", EASY).tolist() == [IGNORED] * 3 + [0] + [IGNORED] * 3 + [OTHER_CLASS]


def test_a_low_detection_of_another_class_takes_a_ground_truth() -> None:
    """It is then neither found nor missed."""
    truth = _table(_row("car", 0), _row("car", 1))
    found = _table(_row("cyclist", 0, score=0.9, height=20), _row("car", 1, score=0.5))
    curve = _curve(truth, found)
    assert (curve.num_ground_truth, curve.num_found) == (2, 1)
    assert curve.recall.tolist() == [1.0]
    tall = _table(_row("cyclist", 0, score=0.9, height=60), _row("car", 1, score=0.5))
    assert _curve(truth, tall).recall.tolist() == [0.5]


def test_unlabelled_areas_excuse_in_the_image_alone() -> None:
    truth = _table(_row("car", 0), _row("dontcare", 1))
    found = _table(_row("car", 0, score=0.5), _row("car", 1, score=0.9))
    assert _curve(truth, found, "bbox").precision[0] == 1
    assert _curve(truth, found, "3d").precision[0] == 0.5
    assert _curve(truth, found, "bev").precision[0] == 0.5
    # The part of the detection that is covered counts, not that of the area.
    half = _table(_row("car", 0), _row("dontcare", 1, height=29))
    assert _curve(half, found, "bbox").precision[0] == 0.5


def test_orientation_similarity_weighs_what_was_found() -> None:
    truth = _table(_row("car", 0, alpha=0.3))
    for turn, similarity in ((0.0, 1.0), (np.pi / 2, 0.5), (np.pi, 0.0)):
        found = _table(_row("car", 0, score=0.5, alpha=0.3 + turn))
        curve = _curve(truth, found, "bbox")
        assert curve.similarity is not None
        assert curve.similarity[0] == pytest.approx(similarity)
    assert _curve(truth, found, "3d").similarity is None


def test_frames_must_agree() -> None:
    table = _table(_row("car"))
    with pytest.raises(ValueError, match="same frames in the same order"):
        KittiEvaluation(table, KittiTable(("1",), table.offsets, table.kind, table.values))
