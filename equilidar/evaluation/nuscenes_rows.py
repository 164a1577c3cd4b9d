"""From detections in a sweep's frame to boxes as nuScenes' submissions want them: global frame, with attributes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from equilidar.evaluation.nuscenes_boxes import ATTRIBUTES, CLASSES, NO_ATTRIBUTE, UNKNOWN_POINTS, NuscenesBoxes
from equilidar.evaluation.nuscenes_files import MAX_BOXES
from equilidar.structures import Detections

# Which attribute a class has most often in the training split, and which one it has above MOVES metres per second:
# a LiDAR detector predicts none (as OpenPCDet's pcdet/datasets/nuscenes/nuscenes_utils.py).
_AT_REST = {
    "car": "vehicle.parked",
    "truck": "vehicle.parked",
    "construction_vehicle": "vehicle.parked",
    "trailer": "vehicle.parked",
    "bus": "vehicle.stopped",
    "motorcycle": "cycle.without_rider",
    "bicycle": "cycle.without_rider",
    "pedestrian": "pedestrian.standing",
}
_MOVING = {
    **dict.fromkeys(("car", "truck", "construction_vehicle", "trailer", "bus"), "vehicle.moving"),
    **dict.fromkeys(("motorcycle", "bicycle"), "cycle.with_rider"),
    "pedestrian": "pedestrian.moving",
}
MOVES = 0.2


def to_nuscenes_boxes(
    token: str, found: Detections, class_names: Sequence[str], world_T_sensor: Float64[np.ndarray, "4 4"]
) -> NuscenesBoxes:
    """Return one sample's best detections in the global frame, by falling score.

    Args:
        token: of the sample.
        found: a batch of one, in the sensor's frame. Unknown velocities say that all stands still.
        class_names: of the labels.
        world_T_sensor: pose of the sensor.

    Raises:
        ValueError: the benchmark knows no such class.
    """
    best = found.scores.argsort(descending=True, stable=True)[:MAX_BOXES]
    rows = found.boxes.as_tensor()[best].double().numpy()
    names: list[str] = [class_names[int(label)] for label in found.boxes.label[best].tolist()]
    unknown = [name for name in names if name not in CLASSES]
    if unknown:
        raise ValueError(f"nuScenes: the benchmark has no class {unknown[0]}, only {', '.join(CLASSES)}")
    rotation = world_T_sensor[:3, :3]
    x, y, z, w = (Rotation.from_matrix(rotation) * Rotation.from_euler("z", rows[:, 6:])).as_quat().reshape(-1, 4).T
    velocity = (found.boxes.velocity[best].nan_to_num().double().numpy() @ rotation.T)[:, :2]
    moves = (np.linalg.norm(velocity, axis=1) > MOVES).tolist()
    number = len(rows)
    return NuscenesBoxes(
        samples=(token,),
        sample=np.zeros(number, np.int64),
        label=np.array([CLASSES.index(name) for name in names], dtype=np.int64),
        center=rows[:, :3] @ rotation.T + world_T_sensor[:3, 3],
        size=rows[:, [4, 3, 5]],
        rotation=np.stack([w, x, y, z], 1),
        velocity=velocity,
        ego_offset=np.full((number, 2), np.nan),
        num_points=np.full(number, UNKNOWN_POINTS),
        score=found.scores[best].double().numpy(),
        attribute=np.array([_attribute(name, move) for name, move in zip(names, moves, strict=True)], dtype=np.int64),
    )


def _attribute(name: str, moves: bool) -> int:
    attribute = (_MOVING if moves else _AT_REST).get(name)
    return NO_ATTRIBUTE if attribute is None else ATTRIBUTES.index(attribute)
