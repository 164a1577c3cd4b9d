"""Classes and velocities of the nuScenes detection benchmark. Pair readers may not import this."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

# The detection challenge's classes and the categories that count as each (nuscenes-devkit 1.2.0,
# nuscenes/eval/detection/utils.py). All other categories are no object of the challenge.
CATEGORIES = {
    "car": ("vehicle.car",),
    "truck": ("vehicle.truck",),
    "bus": ("vehicle.bus.bendy", "vehicle.bus.rigid"),
    "trailer": ("vehicle.trailer",),
    "construction_vehicle": ("vehicle.construction",),
    "pedestrian": (
        "human.pedestrian.adult",
        "human.pedestrian.child",
        "human.pedestrian.construction_worker",
        "human.pedestrian.police_officer",
    ),
    "motorcycle": ("vehicle.motorcycle",),
    "bicycle": ("vehicle.bicycle",),
    "traffic_cone": ("movable_object.trafficcone",),
    "barrier": ("movable_object.barrier",),
}
CLASS_NAMES = tuple(CATEGORIES)
CLASS_OF_CATEGORY = {category: name for name, categories in CATEGORIES.items() for category in categories}
_MAX_TIME_STEP = 1.5  # seconds between two key frames that tell a velocity, as in the devkit's box_velocity


def central_velocities(
    rows: Mapping[str, int],
    neighbours: Sequence[tuple[str, str]],
    center: Float64[np.ndarray, "M 3"],
    seconds: Float64[np.ndarray, " M"],
) -> Float64[np.ndarray, "M 3"]:
    """Return metres per second: from the annotation before to the one after, or as many of them as there are.

    The devkit's definition: NaN for an object that is annotated once, and where the two are further apart than 1.5 s
    (3 s, if the annotation lies between them).

    Args:
        rows: row of each annotation, by token.
        neighbours: tokens of the annotations of the same object before and after each; a token without a row is none.
        center: of the boxes, global frame, metres.
        seconds: when each was annotated.
    """
    own = np.arange(len(neighbours))
    before = np.array([rows.get(token, row) for row, (token, _) in enumerate(neighbours)], dtype=np.int64)
    after = np.array([rows.get(token, row) for row, (_, token) in enumerate(neighbours)], dtype=np.int64)
    step = seconds[after] - seconds[before]
    allowed = np.where((before != own) & (after != own), 2 * _MAX_TIME_STEP, _MAX_TIME_STEP)
    known = (step > 0) & (step <= allowed)
    velocity = np.full((len(neighbours), 3), np.nan)
    velocity[known] = (center[after] - center[before])[known] / step[known, None]
    return velocity
