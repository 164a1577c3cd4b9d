"""Broken KITTI-360, SemanticKITTI, Argoverse 2, ONCE and own logs, as a user meets them: one line, file and remedy."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather

from tests.data.fake_argoverse2 import LOG, START, STEP, write_simulated_log
from tests.data.fake_kitti import write_odometry
from tests.data.fake_kitti360 import DRIVE, write_kitti360
from tests.data.fake_logs import driven, velodyne_like, write_log
from tests.data.fake_once import SEQUENCE, write_once
from tests.data.fake_once import START as FIRST
from tests.tools.forked import Done, run_forked

Change = Callable[[Path], object]
Case = tuple[Change, str, list[str], tuple[str, ...]]

SCAN = f"data_3d_raw/{DRIVE}/velodyne_points/data/0000000001.bin"
POSES = f"data_poses/{DRIVE}/poses.txt"
SWEEP, ANNOTATIONS = f"{LOG}/sensors/lidar/{START}.feather", f"{LOG}/annotations.feather"
CITY = f"{LOG}/city_SE3_egovehicle.feather"
ONCE_SWEEP, ONCE_JSON = f"data/{SEQUENCE}/lidar_roof/{FIRST}.bin", f"data/{SEQUENCE}/{SEQUENCE}.json"


def cut(name: str, count: int) -> Change:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-count])


def put(name: str, content: bytes) -> Change:
    return lambda root: (root / name).write_bytes(content)


def drop(name: str) -> Change:
    return lambda root: (root / name).unlink()


def nan_points(name: str) -> Change:
    return lambda root: np.full((9, 4), np.nan, np.float32).tofile(root / name)


def table(name: str, change: Callable[[pa.Table], pa.Table]) -> Change:
    def apply(root: Path) -> None:
        feather.write_feather(change(feather.read_table(root / name, memory_map=False)), str(root / name))

    return apply


def replaced(name: str, values: Any) -> Callable[[pa.Table], pa.Table]:
    def change(old: pa.Table) -> pa.Table:
        return old.set_column(old.column_names.index(name), name, pa.array(values(old[name].to_numpy())))

    return change


def once_json(change: Callable[[list[dict[str, Any]]], object]) -> Change:
    def apply(root: Path) -> None:
        content = json.loads((root / ONCE_JSON).read_text())
        change(content["frames"])
        (root / ONCE_JSON).write_text(json.dumps(content))

    return apply


def log(kind: str, **changes: Any) -> Change:
    """Return what writes a log in the place of the whole one."""

    def apply(root: Path) -> None:
        contents = driven(3)
        for name, change in changes.items():
            setattr(contents, name, change(getattr(contents, name)))
        shutil.rmtree(root / "drive")
        write_log(root / "drive", contents, kind)

    return apply


def first_cloud(num_points: int, fill: float, padding: int = 0) -> Callable[[dict], dict]:
    def change(clouds: dict) -> dict:
        cloud = velodyne_like(np.full((num_points, 3), fill), np.zeros(num_points))
        cloud.row_padding = padding
        (time, _), *rest = clouds["/points"]
        return {"/points": [(time, cloud), *rest]}

    return change


def bag_of(content: Callable[[bytes], bytes]) -> Change:
    def apply(root: Path) -> None:
        path = write_log(root / "other", driven(3), "bag")
        path.write_bytes(content(path.read_bytes()))
        shutil.rmtree(root / "drive")

    return apply


# What is broken, the dataset that meets it, further overrides, and what the one line says.
CASES: dict[str, dict[str, Case]] = {
    "kitti360": {
        "whole": (lambda root: None, "kitti360", [], ()),
        "missing folder": (lambda root: shutil.rmtree(root / "data_3d_raw"), "kitti360", [], ("data_3d_raw",)),
        "truncated sweep": (cut(SCAN, 5), "kitti360", [], ("0000000001.bin", "truncated")),
        "columns": (put(SCAN, b"\0" * 4 * 5 * 9), "kitti360", [], ("0000000001.bin", "4 float32 columns")),
        "not finite": (nan_points(SCAN), "kitti360", [], ("0000000001.bin", "not finite")),
        "empty sweep": (put(SCAN, b""), "kitti360", [], ("0000000001.bin", "empty file")),
        "uncovered": (put(POSES, b"99 1 0 0 0 0 1 0 0 0 0 1 0\n"), "kitti360", [],
                      ("data_poses", "cover none of the sweeps 0 to 5")),
        "broken poses": (put(POSES, b"1 2 3\n"), "kitti360", [], ("poses.txt", "12 or 16 more")),
        "no calibration": (drop("calibration/calib_cam_to_velo.txt"), "kitti360", [], ("calib_cam_to_velo.txt",)),
    },
    "semantickitti": {
        "whole": (lambda root: None, "semantickitti", [], ()),
        "missing folder": (lambda root: shutil.rmtree(root / "sequences"), "semantickitti", [], ("sequences",)),
        "uncovered": (put("sequences/00/poses.txt", b"1 0 0 0 0 1 0 0 0 0 1 0\n"), "semantickitti", [],
                      ("poses.txt", "1 poses", "sweep 6", "remove the file")),
        "truncated sweep": (cut("sequences/00/velodyne/000000.bin", 3), "semantickitti", [],
                            ("000000.bin", "truncated")),
        "no calibration": (drop("sequences/00/calib.txt"), "semantickitti", [], ("calib.txt",)),
    },
    "argoverse2": {
        "whole": (lambda root: None, "argoverse2_labelled", [], ()),
        "no boxes": (lambda root: None, "argoverse2_labelled", ["dataset.class_names=[DOG]"], ()),
        "missing folder": (lambda root: shutil.rmtree(root / LOG), "argoverse2", [], ("sensors/lidar", "dataset.root")),
        "truncated sweep": (cut(SWEEP, 900), "argoverse2", [], (f"{START}.feather", "download it again")),
        "columns": (table(SWEEP, lambda t: t.drop_columns(["z"])), "argoverse2", [], (f"{START}.feather", "column z")),
        "not finite": (table(SWEEP, replaced("x", lambda x: x * np.float16(np.nan))), "argoverse2", [],
                       (f"{START}.feather", "not finite")),
        "empty sweep": (table(SWEEP, lambda t: t.slice(0, 0)), "argoverse2", [], (f"{START}.feather", "no points")),
        "no poses": (drop(CITY), "argoverse2", [], ("city_SE3_egovehicle.feather",)),
        "uncovered": (table(CITY, replaced("timestamp_ns", lambda t: t + STEP // 2)), "argoverse2", [],
                      ("city_SE3_egovehicle.feather", "no pose at the time", "download")),
        "no annotations": (drop(ANNOTATIONS), "argoverse2_labelled", [], ("annotations.feather",)),
        "category": (table(ANNOTATIONS, replaced("category", lambda c: ["TANK"] * len(c))), "argoverse2_labelled", [],
                     ("annotations.feather", "TANK")),
        "unknown class": (lambda root: None, "argoverse2_labelled", ["dataset.class_names=[TANK]"],
                          ("dataset.class_names", "TANK")),
    },
    "once": {
        "whole": (lambda root: None, "once_labelled", [], ()),
        "no boxes": (once_json(lambda f: [e.update(annos={"names": [], "boxes_3d": []}) for e in f]), "once_labelled",
                     [], ()),
        "missing folder": (lambda root: shutil.rmtree(root / "data"), "once", [], ("data", "dataset.root")),
        "missing list": (lambda root: shutil.rmtree(root / "ImageSets"), "once", [], ("train.txt", "sequences")),
        "truncated json": (cut(ONCE_JSON, 99), "once", [], (f"{SEQUENCE}.json", "download it again")),
        "truncated sweep": (cut(ONCE_SWEEP, 3), "once", [], (f"{FIRST}.bin", "truncated")),
        "not finite": (nan_points(ONCE_SWEEP), "once", [], (f"{FIRST}.bin", "not finite")),
        "empty sweep": (put(ONCE_SWEEP, b""), "once", [], (f"{FIRST}.bin", "empty file")),
        "uncovered": (once_json(lambda f: [e.update(pose=[0] * 7) for e in f]), "once", [],
                      (f"{SEQUENCE}.json", "sweep and a pose", "download")),
        "category": (once_json(lambda f: f[0]["annos"]["names"].__setitem__(0, "Tank")), "once_labelled", [],
                     (f"{SEQUENCE}.json, frame {FIRST}", "Tank")),
        "unknown class": (lambda root: None, "once_labelled", ["dataset.class_names=[Tank]"],
                          ("dataset.class_names", "Tank")),
    },
    "own_log": {
        "whole": (lambda root: None, "own_log", [], ()),
        "bag": (bag_of(lambda content: content), "own_log", [], ()),
        "missing folder": (lambda root: shutil.rmtree(root / "drive"), "own_log", [], (".mcap", "dataset.root")),
        "truncated bag": (bag_of(lambda content: content[: len(content) // 2]), "own_log", [],
                          ("other.bag", "rosbag reindex")),
        "no bag": (bag_of(lambda content: b"text" * 99), "own_log", [], ("other.bag", "rosbag reindex")),
        "empty bag": (bag_of(lambda content: b""), "own_log", [], ("other.bag", "rosbag reindex")),
        "truncated mcap": (cut("drive/drive.mcap", 999), "own_log", [], ("drive", "ros2 bag reindex")),
        "metadata": (put("drive/metadata.yaml", b"{"), "own_log", [], ("drive", "ros2 bag reindex")),
        "topic": (lambda root: None, "own_log", ["dataset.topic=/lidar"], ("dataset.topic", "/points (3 messages)")),
        "field": (lambda root: None, "own_log", ["dataset.channels=[elongation]"], ("elongation", "'ring'")),
        "unit": (lambda root: None, "own_log", ["dataset.channels=[time]", "dataset.time_unit=h"],
                 ("dataset.time_unit", "auto, s, ms")),
        "torn sweep": (log("sqlite3", clouds=first_cloud(99, 5.0, -24)), "own_log", [],
                       ("drive, /points", "truncated")),
        "empty sweep": (log("mcap", clouds=first_cloud(0, 5.0)), "own_log", [], ("drive, /points", "no points")),
        "not finite": (log("mcap", clouds=first_cloud(99, np.nan)), "own_log", [], ("drive, /points", "no points")),
        "uncovered": (log("mcap", tf=lambda rows: [(time - 10**12, *rest) for time, *rest in rows]), "own_log", [],
                      ("drive", "cover none of the 3 sweeps", "dataset.poses to estimate")),
        "frame": (lambda root: None, "own_log", ["dataset.base_frame=mast"], ("mast", "base_link, odom, velodyne")),
    },
}  # fmt: skip
SETTINGS = {
    "kitti360": [],
    "semantickitti": [],
    "argoverse2": [],
    "once": ["dataset.splits=[train]"],
    "own_log": [],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    folder = tmp_path_factory.mktemp("broken")
    whole = folder / "whole"
    write_kitti360(whole / "kitti360")
    write_odometry(whole / "semantickitti", "00")
    write_simulated_log(whole / "argoverse2", 3)
    write_once(whole / "once", num=3, split="train")
    (whole / "own_log").mkdir()
    write_log(whole / "own_log" / "drive", driven(3))
    commands = {}
    for dataset, cases in CASES.items():
        for name, (change, config, overrides, _) in cases.items():
            root = folder / f"{dataset} {name}"
            shutil.copytree(whole / dataset, root)
            change(root)
            cache = [f"dataset.cache_dir='{folder / 'cache'}'"] if dataset == "own_log" else []
            settings = [f"dataset.root='{root}'", *SETTINGS[dataset], *cache, *overrides]
            commands[f"{dataset} {name}"] = [f"dataset={config}", *settings, f"output='{root}.png'"]
    return run_forked("view", commands, folder)


@pytest.mark.parametrize("name", [f"{dataset} {name}" for dataset, cases in CASES.items() for name in cases])
def test_one_line_names_file_and_remedy(runs: dict[str, Done], name: str):
    dataset, case = name.split(" ", 1)
    expected, done = CASES[dataset][case][3], runs[name]
    if not expected:
        assert done.returncode == 0 and "picture:" in done.stdout, done.stderr
        return
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    for part in expected:
        assert part in lines[0]
    assert "picture:" not in done.stdout, "nothing half-read is shown"
