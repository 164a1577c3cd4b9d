"""Pretraining, whole: with labels beside the sweeps, with the labels poisoned, and without them it is the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from equilidar.training.csv_logger import read_metrics
from tests.data.fake_nuscenes import ANNOTATIONS, VERSION, write_release
from tests.data.fake_waymo import poisoned, read_records, segment_file, write_records, write_segments

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "grid=sim_tiny", "backbone.width=0.125",
    "logger=csv", "trainer=cpu", "trainer.max_epochs=1", "loader.batch_size=2", "loader.num_workers=1",
    "objective.flow_equivariance.projector=[32,16]", "objective.flow_equivariance.predictor=[16,16]",
    "objective.rotation.hidden=[16]",
)  # fmt: skip

FULL = {"name": "hdl32e", "azimuth_steps": 240, "beam_stride": 2}


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """SemanticKITTI's layout: sweeps, poses, and labels of points (.label) and boxes (label_2) beside them."""
    folder = tmp_path / "data" / "sequences" / "00"
    for name in ("velodyne", "labels", "label_2"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    world = np.column_stack([rng.uniform(-10, 40, 6000), rng.uniform(-12, 12, 6000), rng.normal(-1.6, 0.2, 6000)])
    poses = []
    for index in range(5):
        seen = world[rng.random(len(world)) < 0.6] - [0.8 * index, 0, 0]
        points = np.column_stack([seen, rng.random(len(seen))]).astype(np.float32)
        points.tofile(folder / "velodyne" / f"{index:06d}.bin")
        rng.integers(0, 20, len(points)).astype(np.uint32).tofile(folder / "labels" / f"{index:06d}.label")
        row = "Car 0.00 0 1.5 100 100 200 200 1.5 1.6 3.9 1.0 1.6 20.0 0.1\n"
        (folder / "label_2" / f"{index:06d}.txt").write_text(row)
        # The camera looks along z, the velodyne's x.
        poses.append(f"1 0 0 0 0 1 0 0 0 0 1 {0.8 * index}")
    (folder / "poses.txt").write_text("\n".join(poses) + "\n")
    (folder / "times.txt").write_text("\n".join(f"{0.1 * i:.6f}" for i in range(5)) + "\n")
    (folder / "calib.txt").write_text("Tr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n")
    return folder


def pretrain(root: Path, run: Path, *dataset: str) -> list[dict[str, float]]:
    done = subprocess.run(
        [sys.executable, "tools/pretrain.py", *SETTINGS, *dataset, f"dataset.root={root}", f"paths.run={run}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [{k: v for k, v in row.items() if k != "pairs_per_second"} for row in read_metrics(run / "metrics.csv")]


def test_labels_poisoned_or_gone_change_nothing(sequence: Path, tmp_path: Path) -> None:
    root, dataset = sequence.parents[1], ("dataset=kitti_odometry", "dataset.allow_validation_drives=true")
    with_labels = pretrain(root, tmp_path / "with", *dataset)
    assert len(with_labels) == 2 and all(np.isfinite(row["loss"]) for row in with_labels)
    for path in (sequence / "label_2").iterdir():
        path.write_bytes(b"\xff\x00poison")
    shutil.rmtree(sequence / "labels")
    assert pretrain(root, tmp_path / "poisoned", *dataset) == with_labels


@pytest.mark.slow
def test_nuscenes_without_its_annotation_tables(tmp_path: Path) -> None:
    write_release(tmp_path / "data", ("scene-0061",), frames=5, every=2, sensor=FULL)
    dataset = ("dataset=nuscenes", f"dataset.version={VERSION}", "dataset.split=all", "dataset.accumulate=2")
    with_labels = pretrain(tmp_path / "data", tmp_path / "with", *dataset)
    assert all(np.isfinite(row["loss"]) for row in with_labels)
    for name in ANNOTATIONS:
        (tmp_path / "data" / VERSION / f"{name}.json").unlink()
    assert pretrain(tmp_path / "data", tmp_path / "without", *dataset) == with_labels


@pytest.mark.slow
def test_waymo_with_unreadable_labels(tmp_path: Path) -> None:
    write_segments(tmp_path / "data", ("100_000",), frames=5, sensor=FULL)
    with_labels = pretrain(tmp_path / "data", tmp_path / "with", "dataset=waymo")
    assert all(np.isfinite(row["loss"]) for row in with_labels)
    path = segment_file(tmp_path / "data")
    write_records(path, [poisoned(content) for content in read_records(path)])
    assert pretrain(tmp_path / "data", tmp_path / "poisoned", "dataset=waymo") == with_labels
