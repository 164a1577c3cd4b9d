"""tools/flow.py on logs with something wrong: named in its output, never a hang or a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .forked import ROOT, run_forked
from .own_log import write_sweeps

FLOWS = ("icp_flow", "grid_flow")


def write_log(folder: Path, number: int, told: float, real: float, faults: dict[int, str] | None = None) -> Path:
    """Sweeps of posts on the ground, a tenth of a second apart, each sampled anew.

    Args:
        folder: made here.
        number: of sweeps.
        told: metres that the sensor moves from each to the next by its poses.
        real: the same, by the sweeps.
        faults: "empty", "few", "apart" or "gap" (five seconds before it) by number of the sweep.
    """
    generator = np.random.default_rng(0)
    places = generator.uniform(-25, 25, (70, 2))
    sweeps, rows, seconds = [], [], 0.0
    for row in range(number):
        fault = (faults or {}).get(row)
        posts = np.concatenate([places.repeat(20, 0), generator.uniform(-1.5, 1.5, (1400, 1))], 1)
        ground = np.concatenate([generator.uniform(-30, 30, (3000, 2)), np.full((3000, 1), -1.7)], 1)
        seen = np.concatenate([posts, ground]) - [real * row, 0, 0]
        seen += generator.normal(0, 0.03, seen.shape)
        seen[:, 0] += 500.0 * (fault == "apart")
        sweeps.append(seen[: {"empty": 0, "few": 99}.get(fault or "", len(seen))])
        seconds += 0.1 if fault != "gap" else 5.0
        rows.append(f"{seconds:.1f} {told * row} 0 0 0 0 0 1")
    return write_sweeps(folder, sweeps, rows)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("faults")
    faults = {3: "empty", 6: "few", 9: "apart", 12: "gap"}
    logs = {
        "broken": write_log(folder / "broken", 15, 0.8, 0.8, faults),
        "gaps": write_log(folder / "gaps", 4, 0.8, 0.8, dict.fromkeys(range(4), "gap")),
        "slow": write_log(folder / "slow", 4, 0.01, 0.01),
        "slow inverted": write_log(folder / "slow_inverted", 16, -0.07, 0.07),
        "slow right": write_log(folder / "slow_right", 16, 0.07, 0.07),
        "all moves": write_log(folder / "all_moves", 4, 0.0, 0.3),
    }
    rest = ["dataset=folder", "num_workers=1"]
    commands = {name: [f"dataset.root={log}", "flow=nearest", *rest] for name, log in logs.items() if name != "broken"}
    for flow in FLOWS:
        commands[flow] = [f"dataset.root={logs['broken']}", f"flow={flow}", *rest, "faults.max_fraction=1.0"]
        commands[f"{flow} moves"] = [f"dataset.root={logs['all moves']}", f"flow={flow}", *rest]
    commands["stops"] = [f"dataset.root={logs['broken']}", "flow=nearest", *rest]
    return logs, run_forked("flow", commands, folder)


@pytest.mark.parametrize("flow", FLOWS)
def test_each_pair_without_flow_is_named_and_the_rest_is_cached(runs, flow: str):
    logs, done = runs
    assert done[flow].returncode == 0 and "Traceback" not in done[flow].stderr, done[flow].stderr
    lines = done[flow].stdout.splitlines()
    for frame, said in (
        ("003", "empty file"),
        ("006", "sweep has 99 points"),
        ("009", "do not overlap"),
        ("012", "5.0 s"),
    ):
        assert any(f"/{frame}" in line and said in line for line in lines), (frame, said, lines)
    (cache,) = (logs["broken"] / "flow_cache").glob(f"{flow}-*")
    assert len(list(cache.rglob("*.npz"))) == 12  # of 14 pairs; the empty file spoils two


def test_more_of_them_than_allowed_stop_it_in_one_line(runs):
    done = runs[1]["stops"]
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [("gaps", "5.0 s lie between the sweeps"), ("slow inverted", "the poses are the wrong way round")],
)
def test_what_is_wrong_throughout_is_one_line(runs, name: str, said: str):
    done = runs[1][name]
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ") and said in done.stderr


@pytest.mark.parametrize("flow", FLOWS)
def test_a_scene_in_which_all_moves_is_no_error(runs, flow: str):
    logs, done = runs
    assert done[f"{flow} moves"].returncode == 0, done[f"{flow} moves"].stderr
    (cache,) = (logs["all moves"] / "flow_cache").glob(f"{flow}-*")
    assert len(list(cache.rglob("*.npz"))) == 3


def test_a_drive_too_slow_to_tell_its_poses_is_said_to_be(runs):
    done = runs[1]
    for name in ("slow", "all moves"):
        assert done[name].returncode == 0, done[name].stderr
        assert done[name].stdout.startswith("note: cannot tell whether the poses are the right way round"), name
    assert done["slow right"].returncode == 0, done["slow right"].stderr
    assert "note: " not in done["slow right"].stdout


@pytest.mark.parametrize("own", [None, "active"])
def test_threads_wait_passively_from_before_torch_is_loaded(own: str | None, tmp_path: Path):
    watch = """
import os, runpy, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print("waits", os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
sys.argv = ["flow", "dataset=simulator_small"]
runpy.run_path(TOOL, run_name="__main__")
""".replace("TOOL", repr(str(ROOT / "tools" / "flow.py")))
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    environment |= {} if own is None else {"OMP_WAIT_POLICY": own}
    done = subprocess.run(
        [sys.executable, "-c", watch], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == f"waits {own or 'passive'}\n", done.stderr
