"""tools/distill.py as a user runs it: killed and run again, and with other settings over what it left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import safetensors.torch

from equilidar.flow import FeedforwardFlow

from .forked import ROOT, run_forked

SMALL = [
    "dataset=simulator_small", "dataset.sensor.azimuth_steps=120", "dataset.sensor.beam_stride=8",
    "dataset.num_sequences=1", "dataset.frames_per_sequence=4", "flow=nearest", "num_pairs=3", "device=cpu",
    "network.extent=12.8", "network.width=2", "network.reach=0.8", "distillation.steps=60",
    "distillation.batch_size=1", "checkpoint_every=2",
]  # fmt: skip


def test_killed_at_any_moment_it_goes_on_to_the_same_network(tmp_path: Path):
    killed, whole = ([*SMALL, f"output={tmp_path / name}"] for name in ("killed.st", "whole.st"))
    command = [sys.executable, str(ROOT / "tools" / "distill.py"), *killed]
    # As many threads as `run_forked` gives: a sum's bits depend on their number.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    checkpoint = tmp_path / "killed.st.checkpoint"
    try:
        while not checkpoint.exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert checkpoint.exists() and not (tmp_path / "killed.st").exists()
    commands = {"other": [*killed, "distillation.lr=0.01"], "again": killed, "whole": whole}
    done = run_forked("distill", commands, tmp_path)
    assert done["other"].returncode == 2 and "other settings or data; remove" in done["other"].stderr
    for name in ("again", "whole"):
        assert done[name].returncode == 0, done[name].stderr
    assert "going on after step" in done["again"].stdout and "going on" not in done["whole"].stdout
    assert "flow=feedforward flow.path=" in done["again"].stdout
    assert not list(tmp_path.glob("*.checkpoint")) and not list(tmp_path.glob(".*.partial"))
    here, there = (safetensors.torch.load_file(tmp_path / name) for name in ("killed.st", "whole.st"))
    assert here.keys() == there.keys() and all(here[name].equal(there[name]) for name in here)
    flow = FeedforwardFlow(tmp_path / "killed.st")
    assert flow.origin.teacher == "nearest" and flow.origin.provenance["num_pairs"] == 3


def test_a_file_that_is_no_checkpoint_is_told(tmp_path: Path):
    (tmp_path / "a.st.checkpoint").write_bytes(b"not a checkpoint")
    commands = {"bad": [*SMALL, f"output={tmp_path / 'a.st'}"], "every": [*SMALL, "output=b", "checkpoint_every=0"]}
    done = run_forked("distill", commands, tmp_path)
    assert done["bad"].returncode == 2 and "is no checkpoint" in done["bad"].stderr
    assert done["every"].returncode == 2 and "checkpoint_every must be at least 1" in done["every"].stderr
