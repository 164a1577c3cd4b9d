"""nuScenes's annotation tables and their boxes in the package's convention. Pair readers may not import this."""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from equilidar.data.nuscenes_tables import read_table, rows
from equilidar.data.track_ids import track_number
from equilidar.formats.nuscenes_annotations import CLASS_OF_CATEGORY, central_velocities
from equilidar.structures import Boxes3D
from equilidar.structures.boxes import wrap_angle


@dataclass(frozen=True)
class NuScenesObjects:
    """Annotations of one sample or of many, in the global frame and nuScenes's own conventions.

    Attributes:
        tokens: of the annotations.
        instances: tokens of the objects.
        categories: full names ("vehicle.bus.rigid").
        class_names: the detection class of each, "" where it has none.
        attributes: first attribute's name, "" without one.
        translation: (M, 3) centers, metres.
        size: (M, 3) width, length, height, metres.
        rotation: (M, 4) quaternions w, x, y, z.
        velocity: (M, 3) metres per second, NaN where unknown.
        num_lidar_pts: (M,) LiDAR points in the box, one sweep.
        num_radar_pts: (M,) radar points in the box.
    """

    tokens: tuple[str, ...]
    instances: tuple[str, ...]
    categories: tuple[str, ...]
    class_names: tuple[str, ...]
    attributes: tuple[str, ...]
    translation: NDArray[np.float64]
    size: NDArray[np.float64]
    rotation: NDArray[np.float64]
    velocity: NDArray[np.float64]
    num_lidar_pts: NDArray[np.int64]
    num_radar_pts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, index: NDArray[np.int64]) -> "NuScenesObjects":
        """Keep the rows `index`."""
        return NuScenesObjects(
            tuple(self.tokens[i] for i in index),
            tuple(self.instances[i] for i in index),
            tuple(self.categories[i] for i in index),
            tuple(self.class_names[i] for i in index),
            tuple(self.attributes[i] for i in index),
            self.translation[index],
            self.size[index],
            self.rotation[index],
            self.velocity[index],
            self.num_lidar_pts[index],
            self.num_radar_pts[index],
        )

    def boxes(self, world_T_sensor: NDArray[np.float64], class_names: tuple[str, ...]) -> Boxes3D:
        """Return the objects of `class_names` as boxes in the sensor's frame; all others are dropped.

        Yaw is the heading of the box's length axis in the sensor's frame; the small tilt that is left of the rotation
        is dropped, as in the devkit's own evaluation. Velocity is over ground, along the sensor's axes.
        """
        kept = np.array([i for i, name in enumerate(self.class_names) if name in class_names], dtype=np.int64)
        sensor_T_world = np.linalg.inv(world_T_sensor)
        turn = sensor_T_world[:3, :3]
        heading = turn @ Rotation.from_quat(self.rotation[kept][:, [1, 2, 3, 0]]).as_matrix() if len(kept) else None
        yaw = np.zeros(0) if heading is None else np.arctan2(heading[:, 1, 0], heading[:, 0, 0])
        return Boxes3D.make(
            torch.from_numpy(self.translation[kept] @ turn.T + sensor_T_world[:3, 3]).float(),
            torch.from_numpy(self.size[kept][:, [1, 0, 2]]).float(),
            wrap_angle(torch.from_numpy(yaw)).float(),
            label=torch.tensor([class_names.index(self.class_names[i]) for i in kept], dtype=torch.int64),
            velocity=torch.from_numpy(self.velocity[kept] @ turn.T).float(),
            track=torch.tensor([track_number(self.instances[i]) for i in kept], dtype=torch.int64),
        )


def read_objects(folder: Path, samples: Collection[str]) -> dict[str, NuScenesObjects]:
    """Return the annotations of samples, by sample token; a sample without any has no objects.

    Raises:
        FileNotFoundError: a table is missing (the test release has no annotations).
        ValueError: a table is broken, or does not fit the others.
    """
    times = {t: time for t, (time,) in read_table(folder / "sample.json", ("timestamp",)).items() if t in samples}
    everything, of_sample, links = _read_annotations(folder, samples)
    seconds = np.array([times[token] for token in of_sample], dtype=np.float64) * 1e-6
    place = {token: row for row, token in enumerate(everything.tokens)}
    everything.velocity[:] = central_velocities(place, links, everything.translation, seconds)
    by_sample: dict[str, list[int]] = {token: [] for token in samples}
    for index, token in enumerate(of_sample):
        by_sample[token].append(index)
    return {token: everything.select(np.array(index, dtype=np.int64)) for token, index in by_sample.items()}


def _read_annotations(
    folder: Path, samples: Collection[str]
) -> tuple[NuScenesObjects, list[str], list[tuple[str, str]]]:
    """Return all annotations of `samples` without velocities, the sample of each, and the ones before and after it."""
    category = {token: name for token, (name,) in read_table(folder / "category.json", ("name",)).items()}
    attribute = {token: name for token, (name,) in read_table(folder / "attribute.json", ("name",)).items()}
    instance = {token: of for token, (of,) in read_table(folder / "instance.json", ("category_token",)).items()}
    path = folder / "sample_annotation.json"
    texts, numbers, links, of_sample = [], [], [], []
    for row in rows(path):
        try:
            if row["sample_token"] not in samples:
                continue
            name = category[instance[row["instance_token"]]]
            first = attribute[row["attribute_tokens"][0]] if row["attribute_tokens"] else ""
            # Interned: a million annotations name one another, their samples and their objects.
            own, of = sys.intern(row["token"]), sys.intern(row["instance_token"])
            texts.append((own, of, name, CLASS_OF_CATEGORY.get(name, ""), first))
            values = [*row["translation"], *row["size"], *row["rotation"], row["num_lidar_pts"], row["num_radar_pts"]]
            numbers.append(np.array(values, dtype=np.float64))
            links.append((sys.intern(row["prev"]), sys.intern(row["next"])))
            of_sample.append(sys.intern(row["sample_token"]))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{path}: annotation {row['token']} fits no table or column ({reason}); download them again"
            ) from error
    if any(len(row) != 12 or not np.isfinite(row).all() for row in numbers):
        raise ValueError(f"{path}: an annotation's numbers are not all there, or not finite; download the table again")
    tokens, instances, categories, classes, attributes = (tuple(row[i] for row in texts) for i in range(5))
    if len(set(tokens)) != len(tokens):
        raise ValueError(f"{path}: a token occurs twice; download the table again")
    table = np.array(numbers).reshape(-1, 12)
    counts = table[:, 10:].astype(np.int64)
    objects = NuScenesObjects(
        tokens,
        instances,
        categories,
        classes,
        attributes,
        table[:, :3],
        table[:, 3:6],
        table[:, 6:10],
        np.full((len(table), 3), np.nan),
        counts[:, 0],
        counts[:, 1],
    )
    return objects, of_sample, links
