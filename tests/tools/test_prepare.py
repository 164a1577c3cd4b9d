"""Packing as a user runs it: the estimate, kills, memory, and errors of one line."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from equilidar.data.packed import PackedPairs
from tests.data.fake_data import cloud, write_bin
from tests.data.fake_kitti import camera_poses, write_pose_rows

ROOT = Path(__file__).resolve().parents[2]


def command(*overrides: str) -> list[str]:
    return [sys.executable, "tools/prepare.py", "dataset=folder", *overrides]


def prepare(*overrides: str, before: Callable[[], None] | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*overrides), cwd=ROOT, env=environment, capture_output=True, text=True, check=False, preexec_fn=before
    )


def write_log(root: Path, sequences: int, sweeps: int, points: int = 200) -> Path:
    """Write sequences of sweeps: one file of points under many names, so that they need little of the disk."""
    root.mkdir(parents=True, exist_ok=True)
    source = write_bin(root / ".points", cloud(0, points))
    for number in range(sequences):
        (root / f"s{number}").mkdir()
        for i in range(sweeps):
            (root / f"s{number}" / f"{i:05d}.bin").hardlink_to(source)
        write_pose_rows(root / f"s{number}" / "poses.txt", camera_poses(sweeps, number))
    return root


def test_an_estimate_then_a_store_then_nothing_to_do(tmp_path: Path):
    root, store = write_log(tmp_path / "log", 2, 5), tmp_path / "store"
    arguments = (f"dataset.root={root}", f"output={store}")
    told = prepare(*arguments, "dry_run=true")
    assert told.returncode == 0, told.stderr
    assert "folder (pairs): 10 sweeps to pack into 2 file(s)" in told.stdout and "about" in told.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]

    done = prepare(*arguments)
    assert done.returncode == 0, done.stderr
    assert "is finished: 10 sweeps of folder in 2 file(s)" in done.stdout
    assert json.loads((store / "index.json").read_text())["command"].startswith(
        "python tools/prepare.py dataset=folder"
    )
    assert len(PackedPairs(store)) == 8
    again = prepare(*arguments)
    assert again.returncode == 0 and "nothing to do" in again.stdout


def test_errors_are_one_line(tmp_path: Path):
    root, store = write_log(tmp_path / "log", 2, 4), tmp_path / "store"
    good = (f"dataset.root={root}", f"output={store}")
    assert prepare(*good).returncode == 0
    index = (store / "index.json").read_text()

    def fails(message: str, *overrides: str) -> None:
        done = prepare(*(overrides or good))
        assert done.returncode == 2, (message, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], done.stderr

    fails("nearest folder that exists", f"dataset.root={tmp_path / 'none'}", f"output={store}")
    fails("output must be given", f"dataset.root={root}")
    fails("other settings (contract.channels", *good, "dataset.channels=[]", "dataset.scales=[]")
    fails("no column 'ring'", *good, "dataset.channels=[ring]", "overwrite=true")
    (store / "index.json").write_text(index[: len(index) // 2])
    fails("index.json is damaged; rebuild the store")
    (store / "index.json").write_text(index.replace('"version": 1', '"version": 99'))
    fails(f"rebuild it: python tools/prepare.py dataset=folder dataset.root={root} output={store} overwrite=true")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path):
    """A limit of the file size stands for it: the same error from the same call."""
    root, store = write_log(tmp_path / "log", 1, 300, points=300), tmp_path / "store"
    arguments = (f"dataset.root={root}", f"output={store}")
    limit = 500_000  # the sweeps that are measured fit, the file does not
    done = prepare(*arguments, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "cannot be written (File too large); run again to go on" in done.stderr
    assert list((store / "sequences").iterdir()) == [] and not (store / "index.json").exists()
    assert prepare(*arguments).returncode == 0


def test_killed_it_goes_on_without_redoing_finished_files(tmp_path: Path):
    root, store = write_log(tmp_path / "log", 6, 150, points=20_000), tmp_path / "store"
    arguments = (f"dataset.root={root}", f"output={store}")
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL)
    files = store / "sequences"
    while len(list(files.glob("*.json"))) < 2:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not (store / "index.json").exists()
    assert workers  # one of the two may have ended with its share
    psutil.wait_procs(workers, timeout=30)
    assert not [worker for worker in workers if worker.is_running()], "orphans go on"
    finished = {path: path.stat().st_mtime_ns for path in files.glob("[!.]*.json")}
    assert 2 <= len(finished) < 6
    with pytest.raises(FileNotFoundError, match=r"not finished: run `python tools/prepare.py"):
        PackedPairs(store)

    done = prepare(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"({len(finished)} of 6 are there already)" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not list(files.glob(".*")), "temporary files are left"
    assert prepare(f"dataset.root={root}", f"output={tmp_path / 'unbroken'}").returncode == 0
    assert PackedPairs(store).index.hash == PackedPairs(tmp_path / "unbroken").index.hash


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [2, 8])
def test_memory_stays_below_2_gb_for_a_release_of_more(tmp_path: Path, num_workers: int):
    """All processes together, 3 GB of sweeps; files that are packed are removed again, to spare the disk."""
    sweeps, points = 75, 125_000
    root, store = write_log(tmp_path / "log", 20, sweeps, points), tmp_path / "store"
    total = sum(path.stat().st_size for path in root.rglob("*.bin"))
    assert total >= 3e9
    process = subprocess.Popen(
        command(f"dataset.root={root}", f"output={store}", f"sweeps_per_file={sweeps}", f"num_workers={num_workers}"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    peak, packed, whole = 0, 0, psutil.Process(process.pid)
    while process.poll() is None:
        memory = 0
        for each in (whole, *whole.children(recursive=True)):
            try:
                memory += each.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, memory)
        for report in (store / "sequences").glob("[!.]*.json"):
            file = report.with_suffix(".arrow")
            size = file.stat().st_size
            if size:
                packed += size
                os.truncate(file, 0)
        time.sleep(0.05)
    assert process.returncode == 0
    assert packed > 0.8 * total, "too little was packed while it was watched"
    print(f"{num_workers} workers: peak of all processes {peak / 1e6:.0f} MB for {total / 1e9:.1f} GB")
    assert peak < 2e9
