"""Prediction as a user runs it: every kind of input, every format, stopped and gone on with, failures of one line."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

from equilidar.checkpoint.detector import read_detector
from equilidar.data.kitti_calibration import read_calibration
from equilidar.evaluation.kitti_files import read_results
from equilidar.evaluation.nuscenes_files import read_submission
from equilidar.structures import SensorContract
from tests.tools.forked import Done, run_forked
from tests.tools.predict_inputs import CLASSES, NUM, write_detector, write_inputs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    write_inputs(folder)
    return folder


def lines(output: Path) -> dict[str, dict]:
    with (output / "detections.jsonl").open() as file:
        next(file)
        return {entry["key"]: entry for entry in map(json.loads, file)}


Case = tuple[str, list[str]]
WORKS: dict[str, Case] = {
    "bin": ("d", ["input=bin"]),
    "one file": ("d", ["input=bin/000002.bin"]),
    "npy": ("d", ["input=npy", "batch_size=3"]),
    "ply": ("d", ["input=ply", "num_workers=1"]),
    "folders": ("d", ["input=drive"]),
    "feather": ("ego", ["input=feather"]),
    "log": ("byte", ["input=log", "reading.cache_dir=cache"]),
    "store": ("d", ["input=store"]),
    "scaled": ("d", ["input=feather", "reading.scales=[255.0]", "reading.frame=sensor"]),
    "faulty": ("d", ["input=faulty"]),
    "kitti": ("d", ["input=bin", "format=kitti", "calibration=calib"]),
    "kitti lidar": ("d", ["input=bin", "format=kitti", "calibration=lidar"]),
    "nuscenes": ("nuscenes", ["input=store", "format=nuscenes"]),
    "pictures": ("d", ["input=bin", "pictures=2", "min_score=0.0"]),
}
FAILS: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "no input": ("d", [], ("give either input=PATH", "dataset=NAME")),
    "no file": ("d", ["input=nowhere"], ("input: nowhere does not exist",)),
    "no detector": ("none", ["input=bin"], ("no finetuned detector file at", "none.safetensors")),
    "kind": ("d", ["input=d.safetensors"], ("d.safetensors is no file of points; known are .bin",)),
    "empty": ("d", ["input=cache"], ("no files of points or logs", "cache")),
    "columns": ("d", ["input=bin", "reading.columns=[x,y,z]"], ("no column 'intensity'", "columns")),
    "channels": ("d", ["input=bin", "reading.channels=[]"], ("channels [intensity / 1]", "read the channels")),
    "no such channel": ("d", ["input=ply", "reading.channels=[ring]"], ("channels [ring / 1]", "read the channels")),
    "time": ("time", ["input=bin"], ("accumulated sweeps", "dataset=folder", "dataset.accumulate")),
    "frame": ("ego", ["input=bin", "reading.scales=[1.0]"], ("in the sensor's frame", "into the ego's frame")),
    "scale": ("byte", ["input=store"], ("intensity / 255", "give the scales [255.0]")),
    "diverged": ("diverged", ["input=bin"], ("not finite in 1 of 1 sweeps, 000000; ", "look at these")),
    "unit": ("byte", ["input=bin"], ("as if of 0..1", "reading.scales=[1.0]")),
    "unit of a log": ("d", ["input=log", "reading.cache_dir=cache"], ("as if of 0..255", "reading.scales=[255.0]")),
    "topic": ("byte", ["input=log", "reading.topic=/lidar", "reading.cache_dir=cache"], ("/points (3 messages)",)),
    "format": ("d", ["input=bin", "format=coco"], ("format must be one of json, kitti, nuscenes",)),
    "calibration": ("d", ["input=bin", "format=kitti"], ("give calibration=FILE or FOLDER", "calibration=lidar")),
    "no calibration": ("d", ["input=bin", "format=kitti", "calibration=no"], ("neither file nor folder no",)),
    "other names": ("d", ["input=drive", "format=kitti", "calibration=bin"], ("no calibration file", "000000.txt")),
    "classes": ("nuscenes", ["input=bin", "format=kitti", "calibration=lidar"], ("KITTI has no class", "bicycle")),
    "pose": ("nuscenes", ["input=bin", "format=nuscenes"], ("has no pose", "format=json")),
    "device": ("d", ["input=bin", "device=gpu"], ("device must be auto, cpu or cuda, got 'gpu'",)),
    "batch": ("d", ["input=bin", "batch_size=0"], ("batch_size must be at least 1",)),
    "radius": ("d", ["input=bin", "radius=far"], ("radius must be metres above 0", "'far'")),
    "no radius": ("d", ["input=bin", "radius=-1"], ("radius must be metres above 0",)),
    "benchmark": ("d", ["input=store", "format=nuscenes"], ("the benchmark has no class Car",)),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Done]:
    (folder / "cache").mkdir()
    commands = {}
    for name, (detector, overrides, *_) in {**WORKS, **{f"not {key}": case for key, case in FAILS.items()}}.items():
        usual = ["pictures=0", "num_workers=0", "device=cpu", f"output='{folder / 'out' / name}'"]
        commands[name] = [f"checkpoint={detector}.safetensors", *usual, *overrides]
    return run_forked("predict", commands, folder)


def output_of(runs: dict[str, Done], folder: Path, name: str) -> dict[str, dict]:
    assert runs[name].returncode == 0, runs[name].stderr
    return lines(folder / "out" / name)


def test_every_kind_of_input_gives_the_same_detections(runs, folder):
    found = {name: output_of(runs, folder, name) for name in ("bin", "npy", "ply", "folders", "store")}
    names = [f"{index:06d}" for index in range(NUM)]
    assert list(found["bin"]) == list(found["npy"]) == list(found["ply"]) == names
    assert list(found["folders"]) == [f"{'a' if i < 2 else 'b'}/{name}" for i, name in enumerate(names)]
    expected = [entry["boxes"] for entry in found["bin"].values()]
    assert all(expected), "an untrained detector that is not shy"
    for other in found.values():
        for ours, theirs in zip(other.values(), expected, strict=True):
            assert len(ours["boxes"]) == len(theirs)
            for one, two in zip(ours["boxes"], theirs, strict=True):
                assert one["class"] == two["class"] and one["center"] == pytest.approx(two["center"], abs=1e-2)
    one = output_of(runs, folder, "one file")
    assert list(one) == ["000002"] and one["000002"]["boxes"] == found["bin"]["000002"]["boxes"]
    assert f"{NUM} of {NUM} sweeps" in runs["bin"].stdout
    assert len(output_of(runs, folder, "feather")) == len(output_of(runs, folder, "scaled")) == NUM
    assert len(output_of(runs, folder, "log")) == 3
    box = expected[0][0]
    assert set(box) == {"class", "score", "center", "size", "yaw"} and box["class"] in CLASSES


def test_faulty_sweeps_are_named_and_skipped(runs, folder):
    found = output_of(runs, folder, "faulty")
    assert list(found) == ["000000", "000002", "000004"]
    text = runs["faulty"].stdout
    assert "not read, so nothing was found there: 000001" in text and "truncated" in text
    assert "000003" in text and "not finite" in text and "3 of 5 sweeps, 2 not read" in text


def test_kitti_text_is_in_the_cameras_frame(runs, folder):
    found = output_of(runs, folder, "kitti")
    rows = read_results(folder / "out" / "kitti" / "kitti")
    assert rows.frames == tuple(found) and len(rows) > 0
    whole = read_results(folder / "out" / "kitti lidar" / "kitti")
    assert len(whole) == sum(len(entry["boxes"]) for entry in found.values()) >= len(rows)
    box, row = found["000000"]["boxes"][0], whole.values[0]
    x, y, z = box["center"]
    length, width, height = box["size"]
    assert row[10:13].tolist() == pytest.approx([-y, height / 2 - z, x], abs=1e-3), "x right, y down, z ahead"
    assert row[7:10].tolist() == pytest.approx([height, width, length], abs=1e-3)
    assert row[3:7].tolist() == [-1] * 4 and row[14] == pytest.approx(box["score"], abs=1e-6)


def test_nuscenes_boxes_are_in_the_global_frame(runs, folder):
    found = output_of(runs, folder, "nuscenes")
    submission = read_submission(folder / "out" / "nuscenes" / "nuscenes.json")
    assert len(submission.samples) == NUM and len(submission) == sum(len(e["boxes"]) for e in found.values())
    entry = next(iter(found.values()))
    pose = np.array(entry["world_T_sensor"])
    best = max(entry["boxes"], key=lambda box: box["score"])
    expected = pose[:3, :3] @ np.array(best["center"]) + pose[:3, 3]
    assert submission.center[0] == pytest.approx(expected, abs=1e-3)
    assert submission.size[0].tolist() == pytest.approx([best["size"][i] for i in (1, 0, 2)])
    assert (submission.attribute >= 0).all(), "each of its classes has one"


def test_pictures_are_spread(runs, folder):
    output_of(runs, folder, "pictures")
    drawn = sorted(path.name for path in (folder / "out" / "pictures" / "pictures").iterdir())
    assert drawn == ["000001.png", "000003.png"]
    assert not (folder / "out" / "bin" / "pictures").exists()


@pytest.mark.parametrize("name", FAILS)
def test_a_failure_is_one_clear_line(runs, folder, name):
    done = runs[f"not {name}"]
    assert done.returncode == 2 and "Traceback" not in done.stderr, (done.stdout, done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for part in FAILS[name][2]:
        assert part in errors[0], errors[0]


def command(folder: Path, output: Path, *overrides: str) -> list[str]:
    given = [f"checkpoint={folder / 'd.safetensors'}", f"input={folder / 'bin'}", f"output={output}"]
    return [sys.executable, "tools/predict.py", *given, "pictures=0", "num_workers=0", "device=cpu", *overrides]


def test_a_killed_run_goes_on_and_another_one_is_refused(folder: Path, runs, tmp_path: Path):
    output = tmp_path / "found"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(folder, output), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    journal = output / "detections.jsonl"
    while process.poll() is None and (not journal.is_file() or journal.read_bytes().count(b"\n") < 3):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    # As if the kill had cut a line short.
    whole = journal.read_bytes()
    kept = b"".join(itertools.islice(whole.splitlines(keepends=True), 3))
    journal.write_bytes(kept + b'{"key": "0000')
    done = subprocess.run(command(folder, output), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"going on: 2 of {NUM} sweeps are done" in done.stdout
    assert lines(output) == lines(folder / "out" / "bin")
    others = {"other": [f"checkpoint={folder / 'nuscenes.safetensors'}"], "anew": ["overwrite=true", "format=json"]}
    again = run_forked(
        "predict", {name: [*command(folder, output)[2:], *more] for name, more in others.items()}, folder
    )
    assert again["other"].returncode == 2 and "classes was" in again["other"].stderr
    assert "overwrite=true" in again["other"].stderr
    assert again["anew"].returncode == 0 and "going on" not in again["anew"].stdout


def test_memory_does_not_grow_with_the_number_of_sweeps(folder: Path):
    """Sweeps are read one at a time: of forty, no more than the loader's batch is ever held."""
    import gc
    import weakref

    from equilidar.data.sweep_sources import Reading, open_sweeps
    from equilidar.training.predict_stream import Output, predict_stream
    from equilidar.training.saved_detector import build_detector

    saved = read_detector(folder / "d.safetensors")
    detector = build_detector(saved, instantiate(saved.config, _convert_="all"), "d")
    many = folder / "many"
    many.mkdir()
    for index in range(12):
        shutil.copy(folder / "bin" / f"{index % NUM:06d}.bin", many / f"{index:06d}.bin")
    source, alive, most = open_sweeps(many, Reading(("intensity",), (1.0,))), weakref.WeakSet(), []

    class Watched:
        contract, keys = source.contract, source.keys

        def __getitem__(self, index: int):
            gc.collect()
            most.append(len(alive))
            sweep = source[index]
            alive.add(sweep.xyz)
            return sweep

    output = Output(folder / "out" / "many", pictures=0)
    predict_stream(saved, detector, Watched(), output, about={}, batch_size=2, progress=False)
    assert len(most) == 12 and max(most) <= 4, most


def test_sample_kitti_frames(samples: Path, folder: Path, tmp_path: Path):
    """Real frames: KITTI text of every frame of a folder, by its own calibration."""
    frames = samples / "kitti_object" / "training"
    if not (frames / "velodyne").is_dir() or not any((frames / "velodyne").glob("*.bin")):
        pytest.skip(f"no KITTI frames under {samples}")
    write_detector(tmp_path / "d.safetensors", SensorContract(("intensity",), (1.0,), "sensor"))
    given = [f"checkpoint={tmp_path / 'd.safetensors'}", f"input={frames / 'velodyne'}", f"output={tmp_path / 'out'}"]
    run = {"kitti": [*given, "format=kitti", f"calibration={frames / 'calib'}", "pictures=1", "num_workers=0"]}
    done = run_forked("predict", run, tmp_path)["kitti"]
    assert done.returncode == 0, done.stderr
    names = {path.stem for path in (frames / "velodyne").glob("*.bin")}
    rows = read_results(tmp_path / "out" / "kitti")
    assert set(rows.frames) == names
    assert read_calibration(next((frames / "calib").glob("*.txt"))).image_size()[0] > 1000
    assert len(list((tmp_path / "out" / "pictures").rglob("*.png"))) == 1
