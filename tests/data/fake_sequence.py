"""A short simulated recording, for fixtures in other data sets' formats."""

import functools
from dataclasses import dataclass

import numpy as np

from equilidar.data.simulator import SimulatedSweeps

CLASS_NAMES = ("Car", "Pedestrian", "Cyclist")


@dataclass(frozen=True)
class RecordedSweep:
    """One turn: points (N, 3) float32 and intensity (N,) in the sensor's frame, pose, and the objects around.

    Attributes:
        flow: (N, 3) to the next turn, ego motion included.
        boxes: (M, 7) x, y, z, length, width, height, yaw.
    """

    xyz: np.ndarray
    intensity: np.ndarray
    world_T_sensor: np.ndarray
    timestamp: float
    flow: np.ndarray
    boxes: np.ndarray
    velocity: np.ndarray
    label: np.ndarray
    track: np.ndarray


@functools.cache
def recorded_sweeps(num: int = 4, azimuth_steps: int = 180, beam_stride: int = 8) -> tuple[RecordedSweep, ...]:
    """Return consecutive turns of one street."""
    sensor = {"name": "hdl64e", "azimuth_steps": azimuth_steps, "beam_stride": beam_stride}
    data = SimulatedSweeps(sensor, 1, num, seed=5, class_names=CLASS_NAMES, min_points=1, rolling_shutter=False)
    sweeps = []
    for index in range(num):
        simulated, boxes = data.simulate(index), data[index].boxes
        sweeps.append(
            RecordedSweep(
                simulated.xyz,
                simulated.intensity,
                simulated.world_T_sensor,
                simulated.timestamp,
                simulated.flow,
                boxes.as_tensor().numpy().astype(np.float64),
                boxes.velocity.numpy(),
                boxes.label.numpy(),
                boxes.track.numpy(),
            )
        )
    return tuple(sweeps)


def box_pose(box: np.ndarray) -> np.ndarray:
    """Return (4, 4) frame_T_object of x, y, z, length, width, height, yaw."""
    pose = np.eye(4)
    cos, sin = np.cos(box[6]), np.sin(box[6])
    pose[:2, :2] = [[cos, -sin], [sin, cos]]
    pose[:3, 3] = box[:3]
    return pose


def count_in_box(xyz: np.ndarray, box: np.ndarray) -> int:
    """Count points in a box in its own frame, float64."""
    local = (xyz.astype(np.float64) - box[:3]) @ box_pose(box)[:3, :3]
    return int((np.abs(local) <= box[3:6] / 2).all(1).sum())
