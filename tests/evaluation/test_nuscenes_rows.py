"""From detections to a submission's boxes: the same for scores during training and for prediction."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.evaluation.nuscenes_boxes import ATTRIBUTES, NuscenesBoxes
from equilidar.evaluation.nuscenes_files import MAX_BOXES, read_submission, write_submission
from equilidar.evaluation.nuscenes_rows import to_nuscenes_boxes
from equilidar.structures import Boxes3D, Detections
from equilidar.training.detection_files import Journal, entry_of, write_nuscenes

NAMES = ("traffic_cone", "pedestrian", "bus", "bicycle", "car")
# A quarter turn to the left, and a step.
POSE = np.array([[0.0, -1, 0, 100], [1, 0, 0, 200], [0, 0, 1, 2], [0, 0, 0, 1]])


def found(labels: list[int], speeds: list[float]) -> Detections:
    number = len(labels)
    rows = torch.arange(3.0 * number).reshape(number, 3)
    velocity = torch.tensor([[speed, 0.0, 0.0] for speed in speeds]).reshape(number, 3)
    size = torch.tensor([4.0, 2.0, 1.5]).expand(number, 3)
    boxes = Boxes3D.make(
        rows, size, torch.full((number,), 0.3), label=torch.tensor(labels, dtype=torch.int64), velocity=velocity
    )
    return Detections(boxes, torch.linspace(0.9, 0.5, max(number, 1))[:number])


def test_places_headings_and_velocities_are_turned_into_the_world() -> None:
    boxes = to_nuscenes_boxes("a", found([4, 4], [3.0, math.nan]), NAMES, POSE)
    np.testing.assert_allclose(boxes.center, [[99, 200, 4], [96, 203, 7]])
    np.testing.assert_allclose(boxes.size, [[2, 4, 1.5]] * 2)
    half = (0.3 + math.pi / 2) / 2
    np.testing.assert_allclose(boxes.rotation, [[math.cos(half), 0, 0, math.sin(half)]] * 2, atol=1e-7)
    np.testing.assert_allclose(boxes.velocity, [[0, 3], [0, 0]], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "speed", "attribute"),
    [
        ("car", 0.1, "vehicle.parked"),
        ("car", 0.3, "vehicle.moving"),
        ("bus", math.nan, "vehicle.stopped"),
        ("bus", -5.0, "vehicle.moving"),
        ("pedestrian", 0.0, "pedestrian.standing"),
        ("pedestrian", 1.0, "pedestrian.moving"),
        ("bicycle", math.nan, "cycle.without_rider"),
        ("bicycle", 4.0, "cycle.with_rider"),
        ("traffic_cone", 3.0, ""),
    ],
)
def test_attributes_follow_class_and_speed(name: str, speed: float, attribute: str) -> None:
    boxes = to_nuscenes_boxes("a", found([NAMES.index(name)], [speed]), NAMES, POSE)
    assert (*ATTRIBUTES, "")[int(boxes.attribute[0])] == attribute


def test_the_best_are_kept_and_classes_of_others_are_refused() -> None:
    many = to_nuscenes_boxes("a", found([0] * 600, [0.0] * 600), NAMES, POSE)
    assert len(many) == MAX_BOXES and (np.diff(many.score) <= 0).all() and many.score[0] == pytest.approx(0.9)
    with pytest.raises(ValueError, match="the benchmark has no class Van, only car, truck"):
        to_nuscenes_boxes("a", found([0], [0.0]), ["Van"], POSE)


def test_predicted_files_are_those_of_evaluation(tmp_path: Path) -> None:
    sweeps = {"a": found([0, 4, 1], [0.0, 2.5, 0.1]), "b": found([], []), "c": found([3, 2], [math.nan, 0.5])}
    journal = Journal(tmp_path / "detections.jsonl", {})
    for key, item in sweeps.items():
        journal.add(f"nuscenes/scene/{key}", {"world_T_sensor": POSE.tolist(), **entry_of(item, NAMES)})
    journal.close()
    write_nuscenes(tmp_path / "predicted.json", journal, {"nuscenes/scene/c": "token"})
    tokens = {"a": "a", "b": "b", "c": "token"}
    parts = [to_nuscenes_boxes(tokens[key], item, NAMES, POSE) for key, item in sweeps.items()]
    write_submission(tmp_path / "evaluated.json", [NuscenesBoxes.concatenate(parts)])
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("predicted.json", "evaluated.json"))
    assert one["meta"] == two["meta"] and list(one["results"]) == list(two["results"]) == ["a", "b", "token"]
    ours, theirs = (read_submission(tmp_path / name) for name in ("predicted.json", "evaluated.json"))
    assert ours.attribute.tolist() == theirs.attribute.tolist() and ours.label.tolist() == theirs.label.tolist()
    for name in ("sample", "center", "size", "rotation", "velocity", "score"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4)
