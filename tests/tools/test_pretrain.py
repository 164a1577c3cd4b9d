"""Pretraining as a user runs it: commands, kills from outside, two processes, and what errors say."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.checkpoint import read_backbone
from equilidar.training.csv_logger import read_metrics

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "pretrain.py"
SETTINGS = [
    "grid=sim_tiny", "dataset=folder", "backbone.width=0.125", "optimizer.lr=1e-3", "logger=csv", "trainer=cpu",
    "trainer.max_epochs=3", "trainer.accumulate_grad_batches=2", "loader.batch_size=4", "loader.num_workers=2",
    "callbacks.save.every_n_steps=2", "monitor_every=4", "objective.flow_equivariance.projector=[32,16]",
    "objective.flow_equivariance.predictor=[16,16]", "objective.rotation.hidden=[16]", "momentum.base=0.9",
]  # fmt: skip
CLOCKS = ("pairs_per_second",)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """A drive of 21 sweeps past boxes on a plane, with poses: 20 pairs, 5 batches an epoch."""
    folder = tmp_path_factory.mktemp("log")
    rng = np.random.default_rng(0)
    corners = rng.uniform([-10, -12, -1.5], [40, 12, -1], (60, 1, 3))
    objects = (corners + rng.uniform(0, [3, 1.5, 1.5], (60, 40, 3))).reshape(-1, 3)
    ground = np.column_stack([rng.uniform(-10, 50, 4000), rng.uniform(-12, 12, 4000), rng.normal(-1.7, 0.02, 4000)])
    world = np.concatenate([objects, ground])
    poses = []
    for index in range(21):
        seen = world[rng.random(len(world)) < 0.5] - [index, 0, 0]
        np.column_stack([seen, rng.random(len(seen))]).astype(np.float32).tofile(folder / f"{index:06d}.bin")
        poses.append(f"1 0 0 {index} 0 1 0 0 0 0 1 0")
    (folder / "poses.txt").write_text("\n".join(poses) + "\n")
    return folder


def _start(*overrides: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(TOOL), *overrides],
        cwd="/",
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(*overrides: str) -> str:
    process = _start(*overrides)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    return out


def _kill_after_step(step: int, run: Path, *overrides: str) -> None:
    process = _start(*overrides)
    while not any(row["step"] >= step for row in read_metrics(run / "metrics.csv")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (run / "finished.json").exists()


def _trace(run: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in read_metrics(run / "metrics.csv")]


@pytest.fixture(scope="module")
def unbroken(log, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    _finish(*SETTINGS, f"dataset.root={log}", f"paths.run={run}")
    return run


def test_a_run_leaves_backbone_metrics_and_provenance(unbroken):
    rows = _trace(unbroken)
    assert [row["step"] for row in rows] == list(range(9))
    for name in ("loss", "point_contrast/info_nce", "rotation/accuracy", "views/paired", "lr"):
        assert all(np.isfinite(row[name]) for row in rows)
    assert {row["step"] for row in rows if "gradient/rotation/cross_entropy" in row} == {0, 4, 8}
    assert all(0 < row["views/paired"] <= 1 for row in rows)
    saved = read_backbone(unbroken / "backbone.safetensors")
    assert saved.provenance["flow_from_labels"] is False
    assert saved.provenance["config"]["backbone"]["width"] == 0.125
    provenance = json.loads((unbroken / "provenance.json").read_text())
    assert provenance["data"]["train"]["num_samples"] == 20 and provenance["data"]["train"]["hash"]
    assert len(provenance["attempts"]) == 1 and "torch" in provenance["attempts"][0]["packages"]
    assert json.loads((unbroken / "finished.json").read_text())["steps"] == 9


def test_the_checkpoint_holds_all_that_a_resumed_run_needs(unbroken):
    checkpoint = torch.load(unbroken / "checkpoints" / "last.ckpt", weights_only=True)
    assert any(name.startswith("target.network") for name in checkpoint["state_dict"])
    assert checkpoint["optimizer_states"] and checkpoint["lr_schedulers"]
    assert {"RandomStates", "FaultWatch"} <= set(checkpoint["callbacks"])
    assert checkpoint["SweepLoaders"] == {"processes": 1, "loader": None, "next_epoch": 3}  # at an epoch's end


def test_killed_at_random_steps_it_reaches_the_same_losses_bit_for_bit(unbroken, log, tmp_path):
    run, seed = tmp_path / "run", random.SystemRandom().randrange(1000)
    command = [*SETTINGS, f"dataset.root={log}", f"paths.run={run}"]
    first, second = sorted(random.Random(seed).sample(range(2, 8), 2))
    for step in (first, second):
        _kill_after_step(step, run, *command)
    _finish(*command)
    for ours, theirs in zip(_trace(run), _trace(unbroken), strict=True):
        assert ours == theirs, f"killed after steps {first} and {second} (seed {seed})"
    ours, theirs = (read_backbone(folder / "backbone.safetensors").tensors for folder in (run, unbroken))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(json.loads((run / "provenance.json").read_text())["attempts"]) == 3


def test_killed_right_after_the_last_batch_of_an_epoch_it_goes_on_with_the_next(unbroken, log, tmp_path):
    # 3 steps an epoch, a checkpoint wanted at step 6: the one moment at which a resumed loader has nothing left.
    run = tmp_path / "run"
    command = [*SETTINGS, f"dataset.root={log}", f"paths.run={run}", "callbacks.save.every_n_steps=3"]
    _kill_after_step(5, run, *command)
    _finish(*command)
    assert _trace(run) == _trace(unbroken)


def test_two_processes_with_ema_accumulation_and_a_kill_give_the_trace_of_one(unbroken, log, tmp_path):
    run = tmp_path / "run"
    command = [
        *[text for text in SETTINGS if text != "trainer=cpu"],
        "trainer=ddp_cpu", f"dataset.root={log}", f"paths.run={run}",
    ]  # fmt: skip
    _kill_after_step(4, run, *command)
    _finish(*command)
    ours, single = _trace(run), _trace(unbroken)
    assert [row["step"] for row in ours] == [row["step"] for row in single]
    losses = ("loss", "point_contrast/info_nce", "rotation/cross_entropy", "flow_equivariance/regression")
    for name in (*losses, "views/paired", "lr", "point_contrast/pairs", "flow_equivariance/paired_points"):
        for mine, one in zip(ours, single, strict=True):
            # The same at the start; AdamW's steps, near the sign of each gradient, amplify rounding from then on.
            assert mine[name] == pytest.approx(one[name], rel=1e-4 if one["step"] == 0 else 1e-2), (name, one["step"])


def test_a_finished_run_refuses_and_names_the_way_out(unbroken, log):
    process = _start(*SETTINGS, f"dataset.root={log}", f"paths.run={unbroken}")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert len(err.splitlines()) == 1 and "force=true" in err


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["optimizr.lr=1"], "nearest known: 'optimizer.lr'"),
        (["objective=essl2d"], "nearest known: 'essl3d'"),
        (["dataset=folder"], "dataset.root must be given"),
        (["dataset=folder", "dataset.root=/no/such/folder"], "/no/such/folder"),
        (["grid.point_range=[0,-12.8,-3,20,12.8,1]"], "x holds 100 voxels of 0.2 m, not a multiple of 8"),
        (["flow=exact"], "flow.allow_labels=true"),
    ],
)
def test_an_error_of_the_user_is_one_line(overrides, told, tmp_path):
    process = _start("grid=sim_tiny", f"paths.runs={tmp_path}", *overrides)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    assert len(err.splitlines()) == 1 and told in err


@pytest.mark.parametrize(("name", "steps"), [("kitti_raw", 2), ("odometry", 2)])
def test_sample_experiment_runs(name, steps, samples, tmp_path):
    folder = samples / {"kitti_raw": "kitti_raw", "odometry": "kitti_odometry"}[name]
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}")
    run = tmp_path / "run"
    overrides = [f"+experiment=sample_pretrain_{name}", f"paths.run={run}", f"trainer.max_steps={steps}"]
    process = _start(*overrides, EQUILIDAR_SAMPLES=str(samples))
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, out + err
    rows = _trace(run)
    assert len(rows) == steps and all(row["flow_equivariance/paired_points"] > 0.5 for row in rows)
    assert read_backbone(run / "backbone.safetensors").identity.contract["channels"] == ["intensity"]


def test_deterministic_runs_are_the_same_bit_by_bit(log, tmp_path):
    traces = []
    for name in ("one", "other"):
        run = tmp_path / name
        process = _start(
            *SETTINGS, "deterministic=true", "trainer.max_epochs=1", "monitor_every=0", f"dataset.root={log}",
            f"paths.run={run}", OMP_NUM_THREADS="2",
        )  # fmt: skip
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
        traces.append((_trace(run), read_backbone(run / "backbone.safetensors").tensors))
    (rows, state), (other_rows, other_state) = traces
    assert rows == other_rows
    assert all(torch.equal(state[name], other_state[name]) for name in state)
