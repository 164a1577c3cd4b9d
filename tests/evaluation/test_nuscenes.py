"""The protocol on small sets, worked out by hand; the filter; what is wrong with broken files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from equilidar.evaluation.nuscenes import evaluate_nuscenes
from equilidar.evaluation.nuscenes_boxes import CLASSES, BikeRacks, NuscenesBoxes, filter_boxes
from equilidar.evaluation.nuscenes_evaluator import NuscenesEvaluator
from equilidar.evaluation.nuscenes_files import read_ground_truth_boxes, read_submission


def _boxes(*rows: dict, samples: tuple[str, ...] = ("a",)) -> NuscenesBoxes:
    num = len(rows)

    def column(name: str, default: object, kind: type = np.float64) -> np.ndarray:
        width = np.shape(default)
        return np.array([row.get(name, default) for row in rows], dtype=kind).reshape(num, *width)

    center = column("center", (0.0, 0.0, 0.0))
    yaw = column("yaw", 0.0)
    rotation = np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], 1)
    return NuscenesBoxes(
        samples,
        column("sample", 0, np.int64),
        column("label", 0, np.int64),
        center,
        column("size", (2.0, 4.0, 1.5)),
        rotation,
        column("velocity", (0.0, 0.0)),
        center[:, :2],
        column("points", 5, np.int64),
        column("score", 0.5),
        column("attribute", 5, np.int64),
    )


def test_a_perfect_detector_loses_the_classes_that_do_not_occur() -> None:
    boxes = _boxes({"center": (1, 2, 0)}, {"center": (9, 2, 0), "label": 1})
    figures = evaluate_nuscenes(boxes, boxes)
    assert figures["label_aps"]["car"] == {"0.5": pytest.approx(1), "1.0": pytest.approx(1)} | {
        "2.0": pytest.approx(1),
        "4.0": pytest.approx(1),
    }
    assert figures["mean_ap"] == pytest.approx(0.2)
    assert figures["tp_errors"]["trans_err"] == pytest.approx(0.8)
    assert list(figures["label_tp_errors"]["car"].values()) == pytest.approx([0] * 5)
    assert math.isnan(figures["label_tp_errors"]["traffic_cone"]["vel_err"])


def test_of_equal_scores_the_later_goes_first() -> None:
    truth = _boxes({"center": (10, 0, 0)})
    far, near = {"center": (11.5, 0, 0)}, {"center": (10.2, 0, 0)}
    # At recall 1 itself the last detection's precision, 1/2, is sampled.
    expected = (89 + 0.4 / 0.9) / 90
    assert evaluate_nuscenes(truth, _boxes(far, near))["label_aps"]["car"]["0.5"] == pytest.approx(expected)
    assert evaluate_nuscenes(truth, _boxes(near, far))["label_aps"]["car"]["0.5"] < 0.6


def test_a_score_of_0_counts_as_unreached() -> None:
    truth = _boxes({"center": (10, 0, 0)})
    found = _boxes({"center": (10, 0, 0), "score": 0.0})
    figures = evaluate_nuscenes(truth, found)
    assert figures["label_aps"]["car"]["2.0"] == pytest.approx(1.0)
    assert figures["label_tp_errors"]["car"]["trans_err"] == 1.0


def test_barriers_have_no_front_and_cars_do() -> None:
    for name, expected in (("barrier", 0.0), ("car", math.pi)):
        label = {"label": CLASSES.index(name), "center": (5, 5, 0)}
        figures = evaluate_nuscenes(_boxes(label), _boxes(label | {"yaw": math.pi}))
        assert figures["label_tp_errors"][name]["orient_err"] == pytest.approx(expected, abs=1e-9)


def test_unknown_velocity_and_attribute_do_not_count() -> None:
    truth = _boxes({"center": (5, 0, 0), "velocity": (np.nan, 0), "attribute": -1}, {"center": (9, 0, 0)})
    found = _boxes({"center": (5, 0, 0), "score": 0.9}, {"center": (9, 0, 0), "velocity": (0.3, 0.4), "attribute": 2})
    errors = evaluate_nuscenes(truth, found)["label_tp_errors"]["car"]
    # The first match tells nothing: its part of the running mean is 0.
    assert errors["vel_err"] == pytest.approx(errors["attr_err"] / 2)
    assert 0 < errors["attr_err"] <= 1


def test_filter_by_range_points_and_racks() -> None:
    bicycle, cone = CLASSES.index("bicycle"), CLASSES.index("traffic_cone")
    boxes = _boxes(
        {"center": (49.9, 0, 0)},
        {"center": (50, 0, 0)},
        {"center": (31, 0, 0), "label": cone},
        {"center": (5, 0, 0), "points": 0},
        {"center": (5, 0, 0), "points": -1},
        {"center": (10, 0.9, 0), "label": bicycle},
        {"center": (10, 1.1, 0), "label": bicycle},
        {"center": (10, 0.9, 0)},
        {"center": (10, 0, 0), "label": bicycle, "sample": 1},
        samples=("a", "b"),
    )
    # 4 m long, 2 m wide, turned by a quarter: 2 m along x, then the rack reaches 2 m along y; here it is not turned.
    rack = BikeRacks(np.array([0]), np.array([[10.0, 0, 0]]), np.array([[2.0, 4, 2]]), np.array([[1.0, 0, 0, 0]]))
    kept = filter_boxes(boxes, rack)
    assert kept.center[:, 0].tolist() == [49.9, 5, 10, 10, 10]
    assert kept.center[2:, 1].tolist() == [1.1, 0.9, 0]
    turned = BikeRacks(rack.sample, rack.center, rack.size, np.array([[1.0, 0, 0, 1.0]]))
    assert len(filter_boxes(boxes, turned)) == 4


def test_other_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="of the same samples"):
        evaluate_nuscenes(_boxes(samples=("a",)), _boxes(samples=("b",)))


BOX = {
    "sample_token": "a",
    "translation": [1.0, 2.0, 3.0],
    "size": [1.0, 2.0, 3.0],
    "rotation": [1.0, 0.0, 0.0, 0.0],
    "velocity": [0.0, None],
    "detection_name": "car",
    "detection_score": 0.5,
    "attribute_name": "",
}


def test_a_submission_is_read(tmp_path: Path) -> None:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps({"results": {"a": [BOX, BOX], "b": []}, "meta": {}}))
    boxes = read_submission(path)
    assert boxes.samples == ("a", "b") and len(boxes) == 2 and boxes.score.tolist() == [0.5, 0.5]
    assert np.isnan(boxes.velocity[:, 1]).all() and np.isnan(boxes.ego_offset).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_token": "b"}, "sample a, box 0: belongs to sample b"),
        ({"attribute_name": "car.flying"}, "unknown attribute 'car.flying'"),
        ({"detection_score": None}, "sample a, box 0: .*None"),
        ({"translation": ["x", 0, 0]}, "sample a, box 0"),
        ({"rotation": [0, 0, 0, 0]}, "box 0: its rotation is zero"),
        ({"size": [1, 2, math.inf]}, "box 0: a number of its .* is not finite"),
        ({"velocity": None}, "sample a, box 0"),
        ({"detection_name": ["car"]}, "sample a, box 0"),
    ],
)
def test_a_faulty_box_is_named(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps({"results": {"a": [BOX | change]}}))
    with pytest.raises(ValueError, match=message):
        read_submission(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"results": {"a": [BOX] * 501}}, "sample a has 501 detections, at most 500"),
        ({"results": {"a": {"x": 1}}}, "expected a list of boxes, got dict"),
        ({"results": {"a": [7]}}, "sample a, box 0: expected an object, got int"),
        ({"results": {}}, "names no sample"),
        ({"gt": {"a": []}}, "holds no 'results' or 'pred'"),
        ({"results": {"a": [{"sample_token": "a"}]}}, "box 0: no 'translation'"),
    ],
)
def test_a_faulty_submission_is_named(tmp_path: Path, content: dict, message: str) -> None:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_submission(path)


def test_ground_truth_must_tell_where_the_ego_vehicle_is(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"gt": {"a": [BOX]}, "pred": {"a": [BOX]}}))
    with pytest.raises(ValueError, match="ground truth without ego_translation"):
        read_ground_truth_boxes(path)
    path.write_text(json.dumps({"gt": {"a": []}, "pred": {"a": [BOX]}}))
    with pytest.raises(ValueError, match="no ground truth box to tell where the ego vehicle is"):
        NuscenesEvaluator(path, path).evaluate()
