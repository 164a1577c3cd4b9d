"""Waymo records against the official conversion, and a real record."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equilidar.data.waymo_labelled import WaymoLabelled
from equilidar.data.waymo_labels import WaymoObjects
from equilidar.data.waymo_range_images import NO_LABEL_ZONE, frame_points
from equilidar.data.waymo_records import list_segments, read_message


def oracle_frames(oracles: Path) -> list[tuple[Path, dict, Any]]:
    found = [
        (path, json.loads(path.with_suffix(".expected.json").read_text()), np.load(path.with_suffix(".points.npz")))
        for path in sorted((oracles / "waymo_frames").glob("*.tfrecord"))
    ]
    if not found:
        pytest.skip(f"no waymo_frames under {oracles}")
    return found


def test_oracle_points(oracles: Path):
    """Every lidar and return of every frame: ranges exact, xyz within 1e-6 m of float64 and the stated of float32."""
    largest = {"float64": 0.0, "float32 beyond what is stated": -math.inf}
    for path, expected, arrays in oracle_frames(oracles):
        (listed,), _ = list_segments([path])
        assert len(listed[0]) == len(expected["frames"])
        for number, (frame, pose, truth) in enumerate(zip(*listed, expected["frames"], strict=True)):
            np.testing.assert_allclose(pose.flatten(), truth["pose"], atol=1e-12)
            assert frame.key == f"waymo/{truth['context_name']}/{truth['timestamp_micros']}"
            parts = {(part.lidar, part.number): part for part in frame_points(read_message(frame, (1, 2, 3, 5)))}
            order = [(entry["lidar"], entry["return"]) for entry in truth["lidars"]]
            assert sorted(parts) == sorted(order)
            for entry in truth["lidars"]:
                part = parts[entry["lidar"], entry["return"]]
                name = f"frame{number}_{entry['lidar']}_return{entry['return']}"
                assert list(part.shape) == entry["shape"] and len(part.xyz) == entry["count"]
                assert int((part.values[:, NO_LABEL_ZONE] == 1).sum()) == entry["count_in_nlz"]
                if f"{name}_nlz_first1000" in arrays:
                    np.testing.assert_array_equal(part.values[:1000, 3], arrays[f"{name}_nlz_first1000"])
                stated = entry["max_abs_float32_minus_float64"] + 1e-5
                for rows, key in ((slice(None, 1000), "first1000"), (slice(None, None, 29), "every29th")):
                    official = arrays[f"{name}_{key}"]
                    np.testing.assert_array_equal(part.values[rows, :3], official[:, :3])
                    difference = np.abs(part.xyz[rows] - official[:, 3:]).max()
                    largest["float32 beyond what is stated"] = max(
                        largest["float32 beyond what is stated"], difference - stated
                    )
                    assert difference <= stated, name
                error = np.abs(part.xyz[::29] - arrays[f"{name}_float64_xyz_every29th"]).max()
                largest["float64"] = max(largest["float64"], error)
                assert error < 1e-6, name
                six = np.column_stack([part.values[:, :3], part.xyz]).astype(np.float64)
                np.testing.assert_allclose(six.mean(0), entry["mean"], atol=stated)
                np.testing.assert_allclose(six.std(0), entry["std"], atol=stated)
    print("largest deviations:", largest)


def test_oracle_labels(oracles: Path, tmp_path: Path):
    for path, expected, _ in oracle_frames(oracles):
        target = tmp_path / path.stem / path.name
        target.parent.mkdir()
        target.symlink_to(path)
        data = WaymoLabelled(target.parent, None, class_names=["Vehicle", "Pedestrian", "Sign", "Cyclist"])
        for index, truth in enumerate(expected["frames"]):
            objects, labels = data.objects(index), truth["labels"]
            assert objects.ids == tuple(label["id"] for label in labels)
            np.testing.assert_array_equal(objects.types, [label["type"] for label in labels])
            np.testing.assert_allclose(objects.box, [label["box"] for label in labels], rtol=1e-12)
            np.testing.assert_allclose(objects.velocity[:, :2], [label["speed"] for label in labels], rtol=1e-12)
            np.testing.assert_array_equal(objects.num_points, [label["num_lidar_points_in_box"] for label in labels])
            np.testing.assert_array_equal(
                objects.labelled_difficulty, [label["detection_difficulty_level"] for label in labels]
            )
            np.testing.assert_array_equal(objects.difficulty, [label["eval_difficulty"] or 0 for label in labels])
            zones = [np.transpose(zone).tolist() for zone in truth["no_label_zones"]]
            assert [zone.tolist() for zone in objects.no_label_zones] == zones
            counted = [label for label in labels if label["num_lidar_points_in_box"] > 0]
            boxes = data[index].boxes
            np.testing.assert_allclose(boxes.as_tensor()[:, :6], [label["box"][:6] for label in counted], atol=1e-4)
            inside = data.in_no_label_zone(index)
            assert int(inside.sum()) == sum(entry["count_in_nlz"] for entry in truth["lidars"])


def test_sample_record(samples: Path):
    """A real frame, its images and lasers taken out: pose and labels as its source decoded them."""
    paths = sorted((samples / "waymo").rglob("*.tfrecord"))
    if not paths:
        pytest.skip(f"no Waymo record under {samples}")
    for path in paths:
        (listed,), left_out = list_segments([path])
        assert not left_out
        decoded = path.with_suffix(".labels_pose.json")
        truth = json.loads(decoded.read_text()) if decoded.is_file() else None
        for frame, pose in zip(*listed, strict=True):
            message = read_message(frame, (1, 2, 3, 6, 7))
            objects = WaymoObjects.from_frame(message)
            assert len(objects) and len(objects.boxes(pose, ("Vehicle", "Pedestrian", "Sign", "Cyclist")))
            np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)
            if truth is None:
                continue
            np.testing.assert_allclose(pose.flatten(), truth["pose"], atol=1e-9)
            names = ("cx", "cy", "cz", "length", "width", "height", "heading")
            boxes = [[label["box"][name] for name in names] for label in truth["laser_labels"]]
            np.testing.assert_allclose(objects.box, boxes, rtol=1e-12)
            assert objects.ids == tuple(label["id"] for label in truth["laser_labels"])
            assert objects.types.tolist() == [label["type"] for label in truth["laser_labels"]]
            counts = [label["num_lidar_points_in_box"] for label in truth["laser_labels"]]
            assert objects.num_points.tolist() == counts
