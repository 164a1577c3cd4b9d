"""Broken nuScenes and Waymo releases, as a user meets them: one line that names the file and what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data.fake_nuscenes import VERSION, Release, edit, write_release
from tests.data.fake_waymo import no_lasers, read_records, rewrite, write_records, write_segments
from tests.tools.forked import Done, run_forked

TRUNCATED, CORRUPT, UNPACK = "truncated", "wrong checksum", "unpack it from its archive again"


def first_sweep(release: Release) -> Path:
    return release.root / next(name for name in release.sweeps if name.startswith("samples"))


def set_points(release: Release, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = first_sweep(release)
    points = np.fromfile(path, "<f4").reshape(-1, 5)
    path.write_bytes(change(points).astype("<f4").tobytes())


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 0xFF
    path.write_bytes(content)


# What is broken, the dataset that meets it, further overrides, and what the one line says.
NUSCENES: dict[str, tuple[Callable[[Release], object], str, list[str], tuple[str, ...]]] = {
    "whole": (lambda r: None, "nuscenes_labelled", [], ()),
    "no boxes": (edit("sample_annotation", list.clear), "nuscenes_labelled", [], ()),
    "missing folder": (lambda r: shutil.rmtree(r.root / VERSION), "nuscenes", [], (VERSION, "dataset.version")),
    "missing table": (lambda r: (r.root / VERSION / "sample.json").unlink(), "nuscenes", [], ("sample.json", "unpack")),
    "truncated table": (lambda r: cut(r.root / VERSION / "ego_pose.json", 9), "nuscenes", [],
                        ("ego_pose.json", TRUNCATED, "download")),
    "duplicate token": (edit("sample_data", lambda t: t.append(t[0])), "nuscenes", [],
                        ("sample_data.json", "occurs twice", "download")),
    "uncovered": (edit("ego_pose", lambda t: t.__delitem__(slice(0, 4))), "nuscenes", [],
                  ("ego_pose.json", "no pose for", "download")),
    "missing sweep": (lambda r: first_sweep(r).unlink(), "nuscenes", [], ("LIDAR_TOP", "cannot be read", UNPACK)),
    "truncated sweep": (lambda r: cut(first_sweep(r), 7), "nuscenes", [], ("samples/LIDAR_TOP", TRUNCATED, UNPACK)),
    "columns": (lambda r: set_points(r, lambda p: p[: len(p) // 5 * 5, :4]), "nuscenes", [],
                ("samples/LIDAR_TOP", "no ring number", UNPACK)),
    "not finite": (lambda r: set_points(r, lambda p: p * np.nan), "nuscenes", [], ("LIDAR_TOP", "not finite", UNPACK)),
    "empty sweep": (lambda r: first_sweep(r).write_bytes(b""), "nuscenes", [], ("LIDAR_TOP", "empty file", UNPACK)),
    "unknown class": (lambda r: None, "nuscenes_labelled", ["dataset.class_names=[tram]"],
                      ("dataset.class_names", "tram", "car, truck")),
    "category": (edit("instance", lambda t: t[0].update(category_token="gone")), "nuscenes_labelled", [],
                 ("sample_annotation.json", "fits no table", "download")),
}  # fmt: skip

WAYMO: dict[str, tuple[Callable[[Path], object], str, list[str], tuple[str, ...]]] = {
    "whole": (lambda path: None, "waymo_labelled", [], ()),
    "no boxes": (lambda path: rewrite(path, 0, lambda f: f.ClearField("laser_labels")), "waymo_labelled", [], ()),
    "missing folder": (lambda path: shutil.rmtree(path.parent), "waymo", [], ("training", "dataset.split")),
    "missing file": (lambda path: path.unlink(), "waymo", [], ("training", "dataset.root")),
    "truncated": (lambda path: cut(path, 50), "waymo", [], (".tfrecord", TRUNCATED, "download")),
    "wrong crc": (flip, "waymo", [], (".tfrecord", CORRUPT, "download")),
    "empty file": (lambda path: path.write_bytes(b""), "waymo", [], (".tfrecord", "empty file", "download")),
    "no frame": (lambda path: write_records(path, [b"\x0f"]), "waymo", [], (".tfrecord", "no Waymo frame", "download")),
    "no pose": (lambda path: rewrite(path, 1, lambda f: f.ClearField("pose")), "waymo", [],
                (".tfrecord", "lacks a Waymo frame's name, time or pose", "download")),
    "duplicate": (lambda path: write_records(path, [read_records(path)[0]] * 2), "waymo", [],
                  (".tfrecord", "occurs twice", "download")),
    "empty sweep": (lambda path: rewrite(path, 0, no_lasers), "waymo", [],
                    (".tfrecord", "no points", "dataset.lidars")),
    "unknown class": (lambda path: None, "waymo_labelled", ["dataset.class_names=[Tram]"],
                      ("dataset.class_names", "Tram", "Vehicle")),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    folder = tmp_path_factory.mktemp("broken")
    release = write_release(folder / "nuscenes", ("scene-0061",), frames=3, every=2)
    write_segments(folder / "waymo", ("100_000",), frames=2)
    commands = {}
    for name, (change, dataset, overrides, _) in NUSCENES.items():
        root = folder / f"nuscenes {name}"
        shutil.copytree(release.root, root)
        change(Release(root, json.loads(json.dumps(release.tables)), release.sweeps, release.poses))
        settings = [f"dataset.version={VERSION}", "dataset.split=all", "dataset.accumulate=2"]
        gap = ["dataset.gap=1"] if dataset == "nuscenes" else []
        commands[f"nuscenes {name}"] = [f"dataset={dataset}", f"dataset.root='{root}'", *settings, *gap, *overrides]
    for name, (change, dataset, overrides, _) in WAYMO.items():
        root = folder / f"waymo {name}"
        shutil.copytree(folder / "waymo", root)
        change(next((root / "training").glob("*.tfrecord")))
        commands[f"waymo {name}"] = [f"dataset={dataset}", f"dataset.root='{root}'", *overrides]
    return run_forked("view", {n: [*c, f"output='{folder / n}.png'"] for n, c in commands.items()}, folder)


@pytest.mark.parametrize("name", [f"nuscenes {n}" for n in NUSCENES] + [f"waymo {n}" for n in WAYMO])
def test_one_line_names_file_and_remedy(runs: dict[str, Done], name: str):
    dataset, case = name.split(" ", 1)
    expected = (NUSCENES if dataset == "nuscenes" else WAYMO)[case][3]
    done = runs[name]
    if not expected:
        assert done.returncode == 0 and "picture:" in done.stdout, done.stderr
        return
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if "left out" not in line]
    assert len(lines) == 1, done.stderr
    for part in expected:
        assert part in lines[0]
    assert "picture:" not in done.stdout, "nothing half-read is shown"
