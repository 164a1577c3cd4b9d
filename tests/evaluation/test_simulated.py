"""Annotated sweeps through KITTI's matching and average precision."""

import math

import numpy as np
import pytest
import torch

from equilidar.evaluation.kitti import KittiEvaluation
from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable
from equilidar.evaluation.simulated import evaluate_sweeps
from equilidar.structures import Boxes3D, Detections, ObjectAnnotations

CLASSES = ("Car", "Pedestrian", "Cyclist", "Van")


def _boxes(rows: np.ndarray, labels: list[int]) -> Boxes3D:
    table = torch.from_numpy(np.asarray(rows)).float().reshape(-1, 7)
    return Boxes3D.make(table[:, :3], table[:, 3:6], table[:, 6], label=torch.tensor(labels, dtype=torch.int64))


def _annotations(rows: np.ndarray, labels: list[int], difficulty: list[int]) -> ObjectAnnotations:
    boxes = _boxes(rows, labels)
    num = len(boxes)
    levels = torch.tensor(difficulty, dtype=torch.int64)
    return ObjectAnnotations(boxes, levels, torch.full((num,), 50), torch.zeros(num))


def _detections(rows: np.ndarray, labels: list[int], scores: list[float]) -> Detections:
    return Detections(_boxes(rows, labels), torch.tensor(scores, dtype=torch.float32))


def _row(num: int, spacing: float = 10.0) -> np.ndarray:
    """Cars in a row, `num` of them."""
    rows = np.tile([0.0, 0, -1, 4, 1.8, 1.5, 0.3], (num, 1))
    rows[:, 0] = np.arange(num) * spacing
    return rows


def test_a_perfect_detector() -> None:
    rows = _row(60)
    scores = np.linspace(0.9, 0.1, 60).tolist()
    result = evaluate_sweeps(
        [_annotations(rows, [0] * 60, [0] * 60)],
        [_detections(rows, [0] * 60, scores)],
        CLASSES,
        {"Car": (0.5, 0.7), "Cyclist": (0.5,)},
    )
    assert result["car"]["num_ground_truth"] == [60, 60, 60]
    for metric in ("bev@0.5", "bev@0.7", "3d@0.5", "3d@0.7"):
        assert result["car"][metric]["AP_R40"] == pytest.approx([100] * 3)
        assert result["car"][metric]["AP_R11"] == pytest.approx([100] * 3)
        assert result["car"][metric]["recall"] == pytest.approx([100] * 3)
    assert result["cyclist"]["num_ground_truth"] == [0, 0, 0]
    assert result["cyclist"]["3d@0.5"]["AP_R40"] == [0, 0, 0]
    assert result.keys() == {"car", "cyclist"}


def test_harder_objects_are_ignored_at_easier_levels() -> None:
    rows = _row(4)
    annotations = [_annotations(rows, [0] * 4, [0, 1, 2, 3])]
    found = _detections(rows[1:], [0] * 3, [0.9, 0.8, 0.7])
    result = evaluate_sweeps(annotations, [found], CLASSES, {"Car": (0.7,)})["car"]
    assert result["num_ground_truth"] == [1, 2, 3]
    assert result["3d@0.7"]["recall"] == pytest.approx([0, 50, 200 / 3])
    # All detections lie on objects: none is false, wherever it is not needed.
    assert result["3d@0.7"]["AP_R11"] == pytest.approx([0, 100 / 11, 100 / 11])


def test_a_van_taken_for_a_car_is_no_error_a_cyclist_is() -> None:
    rows = _row(60)
    scores = np.linspace(0.9, 0.1, 60).tolist()

    def precision(labels: list[int]) -> float:
        result = evaluate_sweeps(
            [_annotations(rows, labels, [0] * 60)], [_detections(rows, [0] * 60, scores)], CLASSES, {"car": (0.5,)}
        )
        return result["car"]["3d@0.5"]["AP_R11"][0]

    assert precision([0, 3] * 30) == pytest.approx(precision([0] * 30 + [3] * 30))
    assert precision([0, 2] * 30) < 0.8 * precision([0, 3] * 30)


def test_height_counts_in_space_and_not_from_above() -> None:
    rows = _row(60)
    raised = rows + np.array([0, 0, 0.6, 0, 0, 0, 0])
    found = _detections(raised, [0] * 60, np.linspace(0.9, 0.1, 60).tolist())
    result = evaluate_sweeps([_annotations(rows, [0] * 60, [0] * 60)], [found], CLASSES, {"Car": (0.5,)})["car"]
    assert result["bev@0.5"]["AP_R40"][0] == pytest.approx(100)
    assert result["3d@0.5"]["AP_R40"][0] == 0  # (1.5 - 0.6) / (1.5 + 0.6) < 0.5


def test_empty_sweeps_and_no_sweeps() -> None:
    nothing = Detections(Boxes3D.empty(), torch.zeros(0))
    rows = _row(2)
    result = evaluate_sweeps(
        [_annotations(rows, [0, 0], [0, 0]), _annotations(rows[:0], [], [])],
        [nothing, _detections(rows, [0, 0], [0.5, 0.4])],
        CLASSES,
        {"Car": (0.5,)},
    )["car"]
    assert result["num_ground_truth"] == [2, 2, 2]
    assert result["3d@0.5"]["recall"] == [0, 0, 0]
    assert evaluate_sweeps([], [], CLASSES, {"Car": (0.5,)})["car"]["3d@0.5"]["AP_R40"] == [0, 0, 0]


def _random_set(rng: np.random.Generator) -> tuple[list[ObjectAnnotations], list[Detections]]:
    annotations, detections = [], []
    for _ in range(15):
        num = int(rng.integers(0, 9))
        rows = np.concatenate([rng.uniform((5, -20, -1.2), (50, 20, -0.8), (num, 3)), np.zeros((num, 4))], 1)
        rows[:, 3:6] = rng.uniform((3.5, 1.5, 1.4), (4.5, 1.9, 1.7), (num, 3))
        rows[:, 6] = rng.uniform(-math.pi, math.pi, num)
        annotations.append(_annotations(rows, rng.choice(4, num).tolist(), rng.integers(0, 4, num).tolist()))
        copies = np.repeat(rows, 2, 0)
        copies[:, :2] += rng.normal(0, 0.25, (2 * num, 2))
        found = _detections(copies, rng.choice(3, 2 * num).tolist(), rng.integers(1, 10, 2 * num).tolist())
        detections.append(found)
    return annotations, detections


def test_agrees_with_the_kitti_evaluator() -> None:
    """The same boxes as KITTI files: occlusion 0 to 3 for the difficulty, all of them high and in nobody's way."""
    annotations, detections = _random_set(np.random.default_rng(3))
    got = evaluate_sweeps(annotations, detections, CLASSES, {"Car": (0.7,), "Pedestrian": (0.5,), "Cyclist": (0.5,)})

    def table(items: list[Boxes3D], occluded: list[torch.Tensor], scores: list[torch.Tensor]) -> KittiTable:
        boxes = Boxes3D.collate(items)
        values = np.zeros((len(boxes), 15))
        values[:, 1] = torch.cat(occluded).numpy()
        values[:, 3:7] = 0, 0, 50, 50
        x, y, z, length, width, height, yaw = boxes.as_tensor().double().numpy().T
        values[:, 7:14] = np.stack([height, width, length, x, height / 2 - z, y, -yaw], 1)
        values[:, 14] = torch.cat(scores).numpy()
        kinds = np.array([KITTI_CLASSES.index(name.lower()) for name in CLASSES])[boxes.label.numpy()]
        return KittiTable(tuple(map(str, range(len(items)))), boxes.offsets.numpy(), kinds, values)

    truth_boxes, found_boxes = [item.boxes for item in annotations], [item.boxes for item in detections]
    truth = table(truth_boxes, [item.difficulty for item in annotations], [item.occluded for item in annotations])
    zeros = [torch.zeros(len(item)) for item in found_boxes]
    expected = KittiEvaluation(truth, table(found_boxes, zeros, [item.scores for item in detections]))
    figures = expected.average_precision()
    assert got["car"]["num_ground_truth"] == expected.num_ground_truth()["car"]
    for name, minimum in (("car", 0.7), ("pedestrian", 0.5), ("cyclist", 0.5)):
        for metric in ("bev", "3d"):
            for points in ("AP_R11", "AP_R40"):
                value = got[name][f"{metric}@{minimum}"][points]
                assert max(value) > 0
                assert value == pytest.approx(figures[name][metric][points])


def test_errors_name_the_argument() -> None:
    one = [_annotations(_row(1), [0], [0])]
    nothing = Detections(Boxes3D.empty(), torch.zeros(0))
    with pytest.raises(ValueError, match="annotations of 1 sweeps but detections of 2"):
        evaluate_sweeps(one, [nothing, nothing], CLASSES, {"Car": (0.5,)})
    with pytest.raises(ValueError, match="overlaps names Tram, the classes are Car"):
        evaluate_sweeps(one, [nothing], CLASSES, {"Tram": (0.5,)})
    with pytest.raises(ValueError, match=r"detections\[0\] holds 2 sweeps"):
        evaluate_sweeps(one, [Detections(Boxes3D.empty(2), torch.zeros(0))], CLASSES, {"Car": (0.5,)})
    with pytest.raises(ValueError, match="not finite"):
        evaluate_sweeps(one, [_detections(_row(1), [0], [math.nan])], CLASSES, {"Car": (0.5,)})
