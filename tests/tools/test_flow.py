"""tools/flow.py as a user runs it: killed and run again, measured, and mistaken."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from equilidar.data.simulator import SimulatedPairs
from equilidar.flow import NearestFlow, PrecomputedFlow, check_teacher
from equilidar.structures import SweepPairBatch

from .forked import ROOT, run_forked
from .own_log import write_sweeps

SMALL = [
    "dataset=simulator_small", "dataset.sensor.azimuth_steps=120", "dataset.sensor.beam_stride=8",
    "dataset.num_sequences=1", "dataset.frames_per_sequence=4", "dataset.frame_step=4",
]  # fmt: skip


def test_killed_at_any_moment_it_goes_on(tmp_path: Path):
    arguments = [*SMALL, "dataset.frames_per_sequence=16", "flow=nearest", f"paths.runs={tmp_path}", "num_workers=2"]
    command = [sys.executable, str(ROOT / "tools" / "flow.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    cache = tmp_path / "flow_cache"
    try:
        while len(list(cache.rglob("*.npz"))) < 3:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.02)
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    psutil.wait_procs(workers, timeout=30)
    assert not [worker for worker in workers if worker.is_running()], "orphans go on"
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("[!.]*.npz")}
    assert 3 <= len(before) < 16
    done = run_forked("flow", {"again": arguments}, tmp_path)["again"]
    assert done.returncode == 0, done.stderr
    assert f"({len(before)} are there already)" in done.stdout
    (folder,) = cache.iterdir()
    assert f"flow=precomputed flow.directory={folder}" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not list(cache.rglob("*.partial")) and len(list(cache.rglob("*.npz"))) == 16
    pairs = SimulatedPairs({"name": "hdl64e", "azimuth_steps": 120, "beam_stride": 8}, 1, 16, frame_step=4)
    check_teacher(PrecomputedFlow(folder), pairs)
    for index in (0, 9, 15):
        batch = SweepPairBatch.collate([pairs[index]])
        torch.testing.assert_close(PrecomputedFlow(folder)(batch).flow, NearestFlow()(batch).flow, atol=1e-3, rtol=0)


def write_log(folder: Path, forward: float, apart: float = 0.0) -> Path:
    """Three sweeps of posts past which the sensor drives by a metre each; poses as told, sweeps `apart` for real."""
    generator = np.random.default_rng(0)
    posts = np.concatenate([generator.uniform(-30, 30, (60, 2)).repeat(20, 0), generator.uniform(-1, 2, (1200, 1))], 1)
    sweeps = [posts - [(1.0 + apart) * number, 0, 0] for number in range(3)]
    return write_sweeps(folder, sweeps, [f"1 0 0 {forward * number} 0 1 0 0 0 0 1 0" for number in range(3)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("flow")
    log, inverted = write_log(folder / "log", 1.0), write_log(folder / "inverted", -1.0)
    (folder / "apart").mkdir()
    write_log(folder / "apart", 1.0, apart=500.0)
    evaluate = ["mode=evaluate", *SMALL, "num_pairs=2"]
    commands = {
        "evaluate": [*evaluate, "estimators=[rigid,nearest,exact]", "+settings.nearest.radius=1.0", "output=a/f.json"],
        "one": [*evaluate, "flow=nearest", "flow.radius=1.0", "output=one.json", "num_pictures=0"],
        "multi": [*evaluate, "estimators=[rigid,grid_flow_multi]", "output=multi.json", "num_pictures=0"],
        "multi cache": [*SMALL, "flow=grid_flow_multi", "num_pairs=2", "num_workers=1", "output=multi"],
        "no network": [*evaluate, "flow=feedforward"],
        "no named network": [*evaluate, "estimators=[rigid,feedforward]"],
        "unknown": [*evaluate, "estimators=[rigid,neerest]"],
        "unknown setting": [*evaluate, "estimators=[nearest]", "+settings.nearest.radios=1"],
        "unused setting": [*evaluate, "estimators=[rigid]", "+settings.nearest.radius=1"],
        "missing": [*evaluate, "estimators=[rigid,precomputed]"],
        "missing folder": [*evaluate, "estimators=[precomputed]", "+settings.precomputed.directory=nowhere"],
        "mode": ["mode=evaluat"],
        "no truth": ["mode=evaluate", "dataset=simulator_small_labelled"],
        "dry": [*SMALL, "flow=nearest", "dry_run=true", "output=dry"],
        "labelled": ["dataset=simulator_small_labelled", "flow=rigid"],
        "no splits": ["dataset=argoverse2_flow", "dataset.root=nowhere", "dataset.splits=null", "flow=rigid"],
        "log": [f"dataset.root={log}", "dataset=folder", "flow=nearest"],
        "inverted": [f"dataset.root={inverted}", "dataset=folder", "flow=nearest"],
        "taken": [f"dataset.root={inverted}", "dataset=folder", "flow=nearest", "check_poses=false", "output=taken"],
        "apart": [f"dataset.root={folder / 'apart'}", "dataset=folder", "flow=nearest"],
        "unknown flow": [*SMALL, "flow=icpflow"],
    }
    return folder, run_forked("flow", commands, folder)


def test_evaluate_writes_exactly_the_figures_and_pictures(runs):
    folder, done = runs
    assert done["evaluate"].returncode == 0, done["evaluate"].stderr
    figures = json.loads((folder / "a/f.json").read_text())
    assert list(figures) == ["rigid", "nearest", "exact"]
    assert set(figures["rigid"]) == {
        "epe_three_way", "epe_foreground_dynamic", "epe_foreground_static", "epe_background_static", "bucket_dynamic",
        "accuracy_strict", "accuracy_relaxed", "seconds_per_pair",
    }  # fmt: skip
    assert figures["exact"]["epe_three_way"] == 0 and figures["exact"]["accuracy_strict"] == 1
    assert figures["rigid"]["epe_background_static"] < 1e-4 < figures["rigid"]["epe_foreground_dynamic"]
    assert "3-way [cm]" in done["evaluate"].stdout and "moving object" in done["evaluate"].stdout
    assert len(list((folder / "a/f").glob("*.png"))) == 2


def test_flow_with_its_settings_is_measured_as_the_named_one(runs):
    folder, done = runs
    assert done["one"].returncode == 0, done["one"].stderr
    one, named = (json.loads((folder / name).read_text())["nearest"] for name in ("one.json", "a/f.json"))
    del one["seconds_per_pair"], named["seconds_per_pair"]
    assert one == named


def test_an_estimator_that_reads_further_sweeps_is_measured_and_cached(runs):
    folder, done = runs
    for name in ("multi", "multi cache"):
        assert done[name].returncode == 0, done[name].stderr
    figures = json.loads((folder / "multi.json").read_text())
    assert figures["grid_flow_multi"]["epe_foreground_dynamic"] <= figures["rigid"]["epe_foreground_dynamic"]
    stamp = json.loads((folder / "multi" / "stamp.json").read_text())
    assert stamp["estimator"] == "grid_flow_multi" and not stamp["from_labels"]
    assert len(list((folder / "multi").rglob("*.npz"))) == 2


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("unknown", "no option 'neerest' in group 'flow'; nearest known: 'nearest'"),
        ("unknown setting", "no key 'radios' in flow=nearest; nearest known: 'radius'"),
        ("unused setting", "settings are for nearest"),
        ("missing", "flow=precomputed needs directory: add +settings.precomputed.directory=..."),
        ("missing folder", "no flow cache at nowhere"),
        ("no network", "flow.path must be given: add flow.path=..."),
        ("no named network", "flow=feedforward needs path: add +settings.feedforward.path=..."),
        ("mode", "mode must be one of cache, evaluate, got 'evaluat'"),
        ("no truth", "has no true flow to measure against"),
        ("labelled", "yields no pairs of sweeps"),
        ("no splits", "dataset.splits must be a list, of train, val, test, got None"),
        ("inverted", "the poses are the wrong way round: after the ego motion what stands is"),
        ("apart", "others: the sweeps do not overlap: "),
        ("unknown flow", "no option 'icpflow' in group 'flow'; nearest known:"),
    ],
)
def test_mistakes_are_one_line(runs, name: str, line: str):
    done = runs[1][name]
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ") and line in done.stderr


def test_a_dry_run_writes_nothing(runs):
    folder, done = runs
    assert done["dry"].returncode == 0, done["dry"].stderr
    assert "flow of 4 pairs of simulator-0 to compute" in done["dry"].stdout and "about" in done["dry"].stdout
    assert not (folder / "dry").exists()


def test_a_users_log_is_cached_beside_it(runs):
    folder, done = runs
    assert done["log"].returncode == 0, done["log"].stderr
    (cache,) = (folder / "log" / "flow_cache").iterdir()
    assert cache.name.startswith("nearest-") and len(list(cache.rglob("*.npz"))) == 2
    assert done["taken"].returncode == 0, done["taken"].stderr
