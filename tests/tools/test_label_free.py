"""Pretraining, whole: with labels beside the sweeps, with the labels poisoned, and without them it is the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from equilidar.training.csv_logger import read_metrics

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "grid=sim_tiny", "dataset=kitti_odometry", "dataset.allow_validation_drives=true", "backbone.width=0.125",
    "logger=csv", "trainer=cpu", "trainer.max_epochs=1", "loader.batch_size=2", "loader.num_workers=1",
    "objective.flow_equivariance.projector=[32,16]", "objective.flow_equivariance.predictor=[16,16]",
    "objective.rotation.hidden=[16]",
)  # fmt: skip


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


def pretrain(sequence: Path, run: Path) -> list[dict[str, float]]:
    done = subprocess.run(
        [sys.executable, "tools/pretrain.py", *SETTINGS, f"dataset.root={sequence.parents[1]}", f"paths.run={run}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [{k: v for k, v in row.items() if k != "pairs_per_second"} for row in read_metrics(run / "metrics.csv")]


def test_labels_poisoned_or_gone_change_nothing(sequence: Path, tmp_path: Path) -> None:
    with_labels = pretrain(sequence, tmp_path / "with")
    assert len(with_labels) == 2 and all(np.isfinite(row["loss"]) for row in with_labels)
    for path in (sequence / "label_2").iterdir():
        path.write_bytes(b"\xff\x00poison")
    shutil.rmtree(sequence / "labels")
    assert pretrain(sequence, tmp_path / "poisoned") == with_labels
