"""nuScenes tables that tell where sweeps are and from where they were measured. None of them holds a label.

The JSON tables are read row by row: as a whole `sample_data.json` of the full release takes several GB of memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from equilidar.data.listing import require_folder
from equilidar.formats.json_stream import read_records

LIDAR = "LIDAR_TOP"
_POSE = ("translation", "rotation")
_LONGEST_ROW = 1 << 24


@dataclass(frozen=True, slots=True)
class LidarSweep:
    """A row of `sample_data.json`.

    Attributes:
        token: of the row.
        sample_token: the sample that it belongs to, or that it precedes.
        filename: relative to the release's root.
        timestamp: microseconds.
        is_key_frame: whether it is the sample's own sweep, the one that labels belong to.
    """

    token: str
    sample_token: str
    filename: str
    timestamp: int
    is_key_frame: bool


@dataclass(frozen=True)
class LidarScene:
    """All sweeps of a scene, samples and those between them, in order of time.

    Attributes:
        name: "scene-0061".
        sweeps: of LIDAR_TOP.
        world_T_sensor: (F, 4, 4), ego pose times the sensor's place on the vehicle.
    """

    name: str
    sweeps: list[LidarSweep]
    world_T_sensor: NDArray[np.float64]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, holding no more than about a megabyte of it.

    Raises:
        FileNotFoundError: no such table.
        ValueError: it is truncated or no list of JSON objects.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"no table {path}; unpack the release's metadata there, or set dataset.root and version"
        )
    for row in _records(path):
        if not isinstance(row, dict) or "token" not in row:
            raise ValueError(f"{path}: a row is no object with a token: {str(row)[:80]}; download it again")
        yield row


def _records(path: Path) -> Iterator[Any]:
    try:
        yield from read_records(path, _LONGEST_ROW)
    except ValueError as error:
        raise ValueError(
            f"{path}: truncated, or no table of nuScenes (a list of JSON objects); download it again"
        ) from error


def read_table(
    path: Path, columns: tuple[str, ...], keep: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, tuple]:
    """Return `columns` of the rows that are kept, by token.

    Raises:
        FileNotFoundError: no such table.
        ValueError: it is truncated, a token occurs twice, or a row lacks a column.
    """
    table: dict[str, tuple] = {}
    for row in rows(path):
        try:
            if keep is not None and not keep(row):
                continue
            values = tuple(row[column] for column in columns)
        except KeyError as error:
            raise ValueError(f"{path}: row {row['token']} has no column {error}; download the table again") from error
        if row["token"] in table:
            raise ValueError(f"{path}: token {row['token']} occurs twice; download the table again")
        table[row["token"]] = values
    return table


def pose_matrices(table: Mapping[str, tuple], path: Path) -> dict[str, NDArray[np.float64]]:
    """Return (4, 4) matrices by token, of metres and quaternions w, x, y, z.

    Args:
        table: translation and rotation by token.
        path: of the table, for messages.

    Raises:
        ValueError: numbers are missing or not finite, or a quaternion has no length.
    """
    numbers = np.zeros((len(table), 7))
    for place, (token, (translation, rotation)) in enumerate(table.items()):
        try:
            numbers[place, :3], numbers[place, 3:] = translation, rotation
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {token} has no pose ({error}); download the table again") from error
    bad = ~np.isfinite(numbers).all(1) | (np.linalg.norm(numbers[:, 3:], axis=1) < 1e-3)
    if bad.any():
        token, (translation, rotation) = list(table.items())[int(bad.argmax())]
        raise ValueError(f"{path}: {token} has no pose: {translation}, {rotation}; download the table again")
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    if len(table):
        poses[:, :3, :3] = Rotation.from_quat(numbers[:, [4, 5, 6, 3]]).as_matrix()
    poses[:, :3, 3] = numbers[:, :3]
    return dict(zip(table, poses, strict=True))


def table_folder(root: Path, version: str) -> Path:
    """Return the folder of the tables.

    Raises:
        FileNotFoundError: there is none; the message names those that exist.
    """
    require_folder(root, "nuScenes data", "dataset.root")
    if (root / version).is_dir():
        return root / version
    versions = sorted(path.name for path in root.glob("v1.0-*") if path.is_dir())
    raise FileNotFoundError(
        f"no tables {root / version}; there are: {', '.join(versions) or 'none'}; set "
        f"{'' if versions else 'dataset.root or '}dataset.version"
    )


def scene_names(folder: Path) -> dict[str, str]:
    """Return name by token of all scenes.

    Raises:
        ValueError: two scenes have the same name.
    """
    names = {token: str(name) for token, (name,) in read_table(folder / "scene.json", ("name",)).items()}
    if len(set(names.values())) != len(names):
        raise ValueError(f"{folder / 'scene.json'}: two scenes have the same name; download the table again")
    return names


def lidar_scenes(folder: Path, names: Mapping[str, str], wanted: Iterable[str]) -> list[LidarScene]:
    """Read sweeps and poses of scenes.

    Args:
        folder: of the tables.
        names: of all scenes, by token.
        wanted: names of those to read; the result is in this order.

    Raises:
        FileNotFoundError: a table is missing.
        ValueError: a table is broken, or does not fit the others.
    """
    wanted = dict.fromkeys(wanted)
    sensors = {t for t, (channel,) in read_table(folder / "sensor.json", ("channel",)).items() if channel == LIDAR}
    mounts = read_table(folder / "calibrated_sensor.json", _POSE, lambda row: row["sensor_token"] in sensors)
    tokens = {token for token, name in names.items() if name in wanted}
    samples = read_table(folder / "sample.json", ("scene_token",), lambda row: row["scene_token"] in tokens)
    table = read_table(
        folder / "sample_data.json",
        ("sample_token", "filename", "timestamp", "is_key_frame", "ego_pose_token", "calibrated_sensor_token"),
        lambda row: row["calibrated_sensor_token"] in mounts and row["sample_token"] in samples,
    )
    world_T_ego = _poses(folder, {row[4]: row[1] for row in table.values()})
    ego_T_sensor = pose_matrices(mounts, folder / "calibrated_sensor.json")
    by_scene: dict[str, list[tuple[LidarSweep, NDArray[np.float64]]]] = {}
    for token, (sample, filename, timestamp, is_key_frame, ego_pose, mount) in table.items():
        sweep = LidarSweep(token, sample, filename, int(timestamp), bool(is_key_frame))
        pose = world_T_ego[ego_pose] @ ego_T_sensor[mount]
        by_scene.setdefault(names[samples[sample][0]], []).append((sweep, pose))
    return [_scene(name, by_scene[name], folder) for name in wanted if name in by_scene]


def _poses(folder: Path, sweeps: Mapping[str, str]) -> dict[str, NDArray[np.float64]]:
    """Return world_T_ego by token; `sweeps` names the file that needs each."""
    path = folder / "ego_pose.json"
    table = read_table(path, _POSE, lambda row: row["token"] in sweeps)
    missing = [token for token in sweeps if token not in table]
    if missing:
        raise ValueError(
            f"{path}: no pose for {len(missing)} of {len(sweeps)} sweeps, the first is {sweeps[missing[0]]} (token "
            f"{missing[0]}): the tables are not of one release, download them again"
        )
    return pose_matrices(table, path)


def _scene(name: str, found: list[tuple[LidarSweep, NDArray[np.float64]]], folder: Path) -> LidarScene:
    found.sort(key=lambda item: item[0].timestamp)
    sweeps = [sweep for sweep, _ in found]
    if len({sweep.timestamp for sweep in sweeps}) != len(sweeps):
        raise ValueError(f"{folder / 'sample_data.json'}: two sweeps of {name} have one time stamp; download it again")
    return LidarScene(name, sweeps, np.stack([pose for _, pose in found]))
