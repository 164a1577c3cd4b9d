"""Range images: what must hold for every calibration and every pose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from waymo_open_dataset import dataset_pb2

from equilidar.data.waymo_range_images import LIDARS, frame_points
from tests.data.fake_waymo import matrix

ANGLE = st.floats(-3.1, 3.1)
METRES = st.floats(-50, 50)
SHAPE = (6, 10)


def frame_with(seed: int, lidar: str, extrinsic: np.ndarray, pose: np.ndarray, pixel: np.ndarray) -> dataset_pb2.Frame:
    frame = dataset_pb2.Frame()
    frame.pose.transform.extend(pose.flatten().tolist())
    calibration = frame.context.laser_calibrations.add(
        name=LIDARS[lidar], beam_inclination_min=-0.6, beam_inclination_max=0.2
    )
    calibration.extrinsic.transform.extend(extrinsic.flatten().tolist())
    image = np.random.default_rng(seed).uniform(-20, 60, (*SHAPE, 4)).astype(np.float32)
    laser = frame.lasers.add(name=LIDARS[lidar])
    laser.ri_return1.range_image_compressed = matrix(image)
    laser.ri_return1.range_image_pose_compressed = matrix(np.broadcast_to(pixel.astype(np.float32), (*SHAPE, 6)))
    return frame


def rigid(angles: list[float], position: list[float]) -> np.ndarray:
    """Return Rz(yaw) Ry(pitch) Rx(roll) and a translation, of numbers that float32 holds exactly."""
    roll, pitch, yaw = (float(np.float32(angle)) for angle in angles)
    result = np.eye(4)
    result[:3, :3] = Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()
    result[:3, 3] = np.float32(position)
    return result


SIX = st.tuples(ANGLE, st.floats(-1.5, 1.5), ANGLE, METRES, METRES, METRES).map(lambda numbers: np.array(numbers))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), SIX)
def test_points_are_at_their_range_from_the_lidar(seed: int, mount: np.ndarray):
    extrinsic = rigid(mount[:3], mount[3:])
    (part,) = frame_points(frame_with(seed, "FRONT", extrinsic, np.eye(4), np.zeros(6)))
    np.testing.assert_allclose(np.linalg.norm(part.xyz - extrinsic[:3, 3], axis=1), part.values[:, 0], rtol=1e-9)
    assert (part.values[:, 0] > 0).all() and len(part.xyz) < SHAPE[0] * SHAPE[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), SIX, SIX)
def test_a_vehicle_that_stands_still_needs_no_pose_of_pixels(seed: int, mount: np.ndarray, six: np.ndarray):
    extrinsic, pose = rigid(mount[:3], mount[3:]), rigid(six[:3], six[3:])
    (top,) = frame_points(frame_with(seed, "TOP", extrinsic, pose, six))
    (front,) = frame_points(frame_with(seed, "FRONT", extrinsic, pose, six))
    np.testing.assert_allclose(top.xyz, front.xyz, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), SIX, SIX)
def test_points_of_a_moving_vehicle_are_where_the_world_has_them(seed: int, six: np.ndarray, now: np.ndarray):
    then, pose = rigid(six[:3], six[3:]), rigid(now[:3], now[3:])
    (top,) = frame_points(frame_with(seed, "TOP", np.eye(4), pose, six))
    (front,) = frame_points(frame_with(seed, "FRONT", np.eye(4), pose, six))
    world = top.xyz @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(world, front.xyz @ then[:3, :3].T + then[:3, 3], atol=1e-9)


@pytest.mark.parametrize("row", range(SHAPE[0]))
def test_the_first_row_is_the_highest(row: int):
    frame = frame_with(0, "REAR", np.eye(4), np.eye(4), np.zeros(6))
    image = np.zeros((*SHAPE, 4), np.float32)
    image[row, 3, 0] = 10
    frame.lasers[0].ri_return1.range_image_compressed = matrix(image)
    (part,) = frame_points(frame)
    elevation = np.arcsin(part.xyz[0, 2] / 10)
    assert elevation == pytest.approx(0.2 - (row + 0.5) / SHAPE[0] * 0.8)
    assert np.arctan2(part.xyz[0, 1], part.xyz[0, 0]) == pytest.approx(np.pi - 3.5 / SHAPE[1] * 2 * np.pi)
