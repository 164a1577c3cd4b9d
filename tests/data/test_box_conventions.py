"""Boxes of nuScenes and Waymo in the sensor's frame: as the vehicle moves, so do they."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from equilidar.data.nuscenes_annotations import NuScenesObjects
from equilidar.data.track_ids import track_number
from equilidar.data.waymo_labels import WaymoObjects
from equilidar.formats.nuscenes_annotations import CLASS_NAMES
from equilidar.structures import Affine3, Boxes3D

POSE = st.tuples(st.floats(-3.1, 3.1), st.floats(-100, 100), st.floats(-100, 100), st.floats(-3, 3))


def pose_matrix(numbers: tuple[float, ...]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", numbers[0]).as_matrix()
    pose[:3, 3] = numbers[1:]
    return pose


def assert_same(boxes: Boxes3D, expected: Boxes3D) -> None:
    torch.testing.assert_close(boxes.center, expected.center, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(boxes.size, expected.size)
    torch.testing.assert_close(boxes.yaw.cos(), expected.yaw.cos(), atol=1e-5, rtol=0)
    torch.testing.assert_close(boxes.yaw.sin(), expected.yaw.sin(), atol=1e-5, rtol=0)
    torch.testing.assert_close(boxes.velocity, expected.velocity, atol=1e-4, rtol=1e-5, equal_nan=True)
    assert torch.equal(boxes.label, expected.label) and torch.equal(boxes.track, expected.track)


def nuscenes_objects(seed: int, number: int = 6) -> NuScenesObjects:
    rng = np.random.default_rng(seed)
    velocity = rng.normal(0, 5, (number, 3))
    velocity[0] = np.nan
    yaw = rng.uniform(-3, 3, number)
    names = tuple(rng.choice([*CLASS_NAMES, ""], number).tolist())
    quaternion = Rotation.from_euler("z", yaw[:, None]).as_quat()[:, [3, 0, 1, 2]]
    texts = tuple(f"{seed}-{i}" for i in range(number))
    counts = rng.integers(0, 50, number)
    return NuScenesObjects(
        texts, texts, names, names, names, rng.uniform(-50, 50, (number, 3)), rng.uniform(0.5, 5, (number, 3)),
        quaternion, velocity, counts, counts,
    )  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), POSE)
def test_nuscenes_boxes_move_with_the_pose(seed: int, numbers: tuple[float, ...]):
    objects, pose = nuscenes_objects(seed), pose_matrix(numbers)
    sensor_T_world = Affine3.from_matrix(torch.from_numpy(np.linalg.inv(pose)).float()[None])
    assert_same(objects.boxes(pose, CLASS_NAMES), objects.boxes(np.eye(4), CLASS_NAMES).transformed(sensor_T_world))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), POSE)
def test_waymo_boxes_are_the_vehicle_s_and_velocities_the_world_s(seed: int, numbers: tuple[float, ...]):
    rng = np.random.default_rng(seed)
    velocity, pose = rng.normal(0, 5, (4, 3)), pose_matrix(numbers)
    box = np.column_stack([rng.uniform(-50, 50, (4, 3)), rng.uniform(0.5, 5, (4, 3)), rng.uniform(-3, 3, 4)])
    objects = WaymoObjects(
        tuple("abcd"), np.array([1, 2, 4, 0]), box, velocity, np.array([3, 9, 0, 7]), np.zeros(4, int)
    )
    boxes = objects.boxes(pose, ("Vehicle", "Pedestrian", "Cyclist"), segment="s")
    torch.testing.assert_close(boxes.as_tensor()[:, :6], torch.from_numpy(box[:3, :6]).float())
    world = boxes.velocity.double().numpy() @ pose[:3, :3].T
    np.testing.assert_allclose(world, velocity[:3], atol=1e-4)
    assert objects.difficulty.tolist() == [2, 1, 0, 1]
    assert boxes.track.tolist() == [track_number(f"s/{name}") for name in "abc"]


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=9), st.text(max_size=9))
def test_track_numbers(one: str, other: str):
    assert 0 <= track_number(one) < 2**63
    assert (track_number(one) == track_number(other)) == (one == other)
