"""A nuScenes release in its official layout, made of simulated sweeps: tables, key frames and sweeps between them."""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from equilidar.data.simulator.classes import SEMANTICS
from equilidar.data.simulator.sweep import SimulatedSweep
from tests.data.simulated import simulate

VERSION = "v1.0-mini"
CATEGORIES = {
    "Car": "vehicle.car",
    "Van": "vehicle.truck",
    "Truck": "vehicle.truck",
    "Pedestrian": "human.pedestrian.adult",
    "Cyclist": "vehicle.bicycle",
    "Nothing of the challenge": "human.pedestrian.stroller",
}
RATE = 20.0
ANNOTATIONS = ("sample_annotation", "instance", "category", "attribute", "visibility")

# The sensor's axes: x right, y forward. In simulated sweeps x is forward and y left.
NUSCENES_T_SIM = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
EGO_T_SENSOR = np.array([[0, 1, 0, 0.94], [-1, 0, 0, 0.0], [0, 0, 1, 1.84], [0, 0, 0, 1]])
GLOBAL_T_WORLD = np.eye(4)
GLOBAL_T_WORLD[:3, 3] = 411.3, 1180.9, 0.0
START = 1_532_402_927_600_000


def token(*parts: Any) -> str:
    return hashlib.md5("/".join(map(str, parts)).encode()).hexdigest()


def pose_columns(pose: np.ndarray) -> dict[str, list[float]]:
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()
    return {"translation": pose[:3, 3].tolist(), "rotation": [w, x, y, z]}


@dataclass
class Release:
    """Tables while they are written.

    Attributes:
        root: of the release.
        tables: rows by table.
        sweeps: simulated sweeps by file name.
        poses: world_T_sensor by file name.
    """

    root: Path
    tables: dict[str, list[dict]] = field(default_factory=lambda: {name: [] for name in TABLES})
    sweeps: dict[str, SimulatedSweep] = field(default_factory=dict)
    poses: dict[str, np.ndarray] = field(default_factory=dict)

    def copy(self, root: Path) -> "Release":
        """Return a release with tables of its own, over the same sweeps."""
        for name in ("samples", "sweeps", "maps"):
            (root / name).symlink_to(self.root / name)
        copied = Release(root, json.loads(json.dumps(self.tables)), self.sweeps, self.poses)
        copied.save()
        return copied

    def save(self, *names: str) -> None:
        folder = self.root / VERSION
        folder.mkdir(parents=True, exist_ok=True)
        for name in names or self.tables:
            (folder / f"{name}.json").write_text(json.dumps(self.tables[name], indent=0))


TABLES = (
    *ANNOTATIONS, "calibrated_sensor", "ego_pose", "log", "map", "sample", "sample_data", "scene", "sensor",
)  # fmt: skip


def write_release(
    root: Path,
    scenes: tuple[str, ...] = ("scene-0061", "scene-0103"),
    frames: int = 13,
    every: int = 6,
    sensor: dict[str, Any] | None = None,
) -> Release:
    """Write `frames` sweeps of each scene, every `every`-th of them a key frame."""
    release = Release(root)
    tables = release.tables
    tables["log"].append({"token": token("log"), "logfile": "n", "vehicle": "n", "date_captured": "d", "location": "l"})
    tables["map"].append(
        {"token": token("map"), "category": "", "filename": "maps/map.png", "log_tokens": [token("log")]}
    )
    (root / "maps").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / "maps" / "map.png")
    for channel, modality in (("CAM_FRONT", "camera"), ("LIDAR_TOP", "lidar")):
        tables["sensor"].append({"token": token(channel), "channel": channel, "modality": modality})
        mount = {"token": token("mount", channel), "sensor_token": token(channel), "camera_intrinsic": []}
        tables["calibrated_sensor"].append(mount | pose_columns(EGO_T_SENSOR))
    for name in CATEGORIES.values():
        if token(name) not in {row["token"] for row in tables["category"]}:
            tables["category"].append({"token": token(name), "name": name, "description": "", "index": 0})
    tables["attribute"].append({"token": token("parked"), "name": "vehicle.parked", "description": ""})
    tables["visibility"].append({"token": "4", "level": "v80-100", "description": ""})
    for number, scene in enumerate(scenes):
        sweeps = [simulate(number, frame, RATE, sensor) for frame in range(frames)]
        _write_scene(release, number, scene, sweeps, every)
    release.save()
    return release


def _write_scene(release: Release, number: int, scene: str, sweeps: list[SimulatedSweep], every: int) -> None:
    tables, frames = release.tables, len(sweeps)
    keys = list(range(0, frames, every))
    sample_tokens = {frame: token(scene, "sample", frame) for frame in keys}
    samples = list(sample_tokens.values())
    tables["scene"].append(
        {"token": token(scene), "name": scene, "description": "", "log_token": token("log"), "nbr_samples": len(keys),
         "first_sample_token": samples[0], "last_sample_token": samples[-1]}
    )  # fmt: skip
    start = START + 100_000_000 * number
    seen: dict[int, list[dict]] = {}
    for frame, simulated in enumerate(sweeps):
        time = start + round(simulated.timestamp * 1e6)
        is_key = frame in sample_tokens
        sample = sample_tokens[next((key for key in keys if key >= frame), keys[-1])]
        folder = "samples" if is_key else "sweeps"
        filename = f"{folder}/LIDAR_TOP/{scene}__LIDAR_TOP__{time}.pcd.bin"
        pose = GLOBAL_T_WORLD @ simulated.world_T_sensor @ np.linalg.inv(NUSCENES_T_SIM)
        release.sweeps[filename], release.poses[filename] = simulated, pose
        _write_points(release.root / filename, simulated)
        for channel, name in (("LIDAR_TOP", filename), ("CAM_FRONT", f"{folder}/CAM_FRONT/{time}.jpg")):
            own = token(scene, channel, frame)
            tables["ego_pose"].append(
                {"token": own, "timestamp": time} | pose_columns(pose @ np.linalg.inv(EGO_T_SENSOR))
            )
            tables["sample_data"].append(
                {"token": own, "sample_token": sample, "ego_pose_token": own, "timestamp": time, "filename": name,
                 "calibrated_sensor_token": token("mount", channel), "fileformat": "pcd", "is_key_frame": is_key,
                 "height": 0, "width": 0, "prev": token(scene, channel, frame - 1) if frame else "",
                 "next": token(scene, channel, frame + 1) if frame + 1 < frames else ""}
            )  # fmt: skip
        if is_key:
            place = samples.index(sample)
            around = ["", *samples, ""]
            tables["sample"].append(
                {"token": sample, "timestamp": time, "scene_token": token(scene),
                 "prev": around[place], "next": around[place + 2]}
            )  # fmt: skip
            _annotate(release, scene, sample, simulated, pose, seen)
    for track, rows in seen.items():
        tables["instance"].append(
            {"token": token(scene, "track", track), "category_token": rows[0].pop("category_token"),
             "nbr_annotations": len(rows), "first_annotation_token": rows[0]["token"],
             "last_annotation_token": rows[-1]["token"]}
        )  # fmt: skip
        for before, after in itertools.pairwise(rows):
            before["next"], after["prev"] = after["token"], before["token"]
            after.pop("category_token")


def edit(table: str, change: Callable[[list[dict]], object]) -> Callable[[Release], None]:
    """Return what lets `change` edit the rows of a table, and saves it."""

    def apply(release: Release) -> None:
        change(release.tables[table])
        release.save(table)

    return apply


def nuscenes_points(simulated: SimulatedSweep) -> np.ndarray:
    """Return (N + 4, 5) float32: the sweep in the sensor's own axes, and four returns from the vehicle's roof."""
    xyz = simulated.xyz.astype(np.float64) @ NUSCENES_T_SIM[:3, :3].T
    rows = np.column_stack([xyz, np.round(simulated.intensity * 255), simulated.beam])
    roof = np.array([[0.9, -0.9, -0.5, 10, 0], [0.1, 0.2, -0.4, 12, 1], [-0.99, 0.99, -0.3, 9, 2], [0, 0, -0.2, 8, 3]])
    return np.concatenate([rows, roof]).astype("<f4")


def _write_points(path: Path, simulated: SimulatedSweep) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nuscenes_points(simulated).tofile(path)


def _annotate(
    release: Release, scene: str, sample: str, simulated: SimulatedSweep, pose: np.ndarray, seen: dict[int, list[dict]]
) -> None:
    objects = simulated.objects
    turn = pose @ NUSCENES_T_SIM
    for i in range(len(objects.track)):
        track = int(objects.track[i])
        name = CATEGORIES.get(SEMANTICS[int(objects.semantic[i])], "human.pedestrian.stroller")
        box = np.eye(4)
        box[:3, :3] = Rotation.from_euler("z", float(objects.yaw[i])).as_matrix()
        box[:3, 3] = objects.center[i]
        length, width, height = objects.size[i].tolist()
        row = {
            "token": token(sample, track), "sample_token": sample, "instance_token": token(scene, "track", track),
            "visibility_token": "4", "attribute_tokens": [token("parked")] if name == "vehicle.car" else [],
            "size": [width, length, height], "prev": "", "next": "", "num_lidar_pts": int(objects.num_points[i]),
            "num_radar_pts": 0, "category_token": token(name),
        }  # fmt: skip
        release.tables["sample_annotation"].append(row | pose_columns(turn @ box))
        seen.setdefault(track, []).append(release.tables["sample_annotation"][-1])
