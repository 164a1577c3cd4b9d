"""Sweeps that are broken in one way each are trained through or named: never a hang, never a silent skip."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from equilidar.training.csv_logger import read_metrics
from tests.tools.broken_sweeps import FAULTS
from tests.tools.forked import Done, run_forked

TINY = ["+experiment=finetune_tiny", "trainer.max_epochs=1", "loader.num_workers=0", "loader.batch_size=2"]
SMALL = ["sensor.azimuth_steps=360", "sensor.beam_stride=4", "num_sequences=1", "frames_per_sequence=3"]
BROKEN = ["dataset._target_=tests.tools.broken_sweeps.BrokenSweeps", "callbacks.faults.min_faults=5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    """Every fault in a process of its own; `run_forked` stops one that hangs."""
    commands: dict[str, list[str]] = {}
    for fault in FAULTS:
        commands[fault] = [*TINY, *BROKEN, f"+dataset.fault={fault}", f"paths.run={folder / fault}"]
    for fault in ("nan_points", "nan_box"):
        commands[f"{fault}, no budget"] = [
            *commands[fault][:-1], "callbacks.faults.min_faults=1", f"paths.run={folder / 'budget' / fault}"
        ]  # fmt: skip
    return run_forked("finetune", commands, folder)


@pytest.mark.parametrize("fault", FAULTS)
def test_trained_through_to_a_detector_with_figures(done: dict[str, Done], folder: Path, fault: str) -> None:
    assert done[fault].returncode == 0, done[fault].stderr
    rows = [row for row in read_metrics(folder / fault / "metrics.csv") if "loss" in row]
    assert len(rows) == 4  # 8 sweeps, 2 at a time: no step is left out
    assert all(abs(row["loss"]) < 1e4 for row in rows)
    assert (folder / fault / "detector.safetensors").is_file()
    assert set(json.loads((folder / fault / "metrics.json").read_text())) == {"car", "pedestrian", "cyclist"}


@pytest.mark.parametrize("fault", ["nan_points", "nan_box"])
def test_what_is_not_finite_is_named_skipped_and_counted(done: dict[str, Done], folder: Path, fault: str) -> None:
    lines = (folder / fault / "faulty_samples.txt").read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("simulator-1000/0000/0016: "), lines
    assert "not finite" in lines[0]
    over = done[f"{fault}, no budget"]
    assert over.returncode == 2
    lines = over.stderr.strip().splitlines()
    assert len(lines) == 1 and "simulator-1000/0000/0016" in lines[0] and "are faulty" in lines[0], lines


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"nan_points", "nan_box"}))
def test_what_can_be_trained_through_is_no_fault(done: dict[str, Done], folder: Path, fault: str) -> None:
    assert not (folder / fault / "faulty_samples.txt").exists()


def spoil(detector: Path, to: Path, tensor: str) -> None:
    """Write a detector's file again with one number that is too large for what is computed with it."""
    with safe_open(detector, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(detector)
    tensors[tensor].view(-1)[0] = 3e38
    save_file(tensors, to, metadata)


@pytest.fixture(scope="module")
def evaluated(done: dict[str, Done], folder: Path) -> dict[str, Done]:
    whole, diverged = folder / "no_boxes" / "detector.safetensors", folder / "diverged.safetensors"
    spoil(whole, diverged, "head.conv_box.weight")
    small = ["dataset=simulator_small_labelled", *(f"dataset.{size}" for size in SMALL), "num_workers=0"]
    broken = [*small, "dataset._target_=tests.tools.broken_sweeps.BrokenSweeps", "+dataset.fault=nan_points"]
    commands = {"sweep": [f"checkpoint={whole}", *broken], "weights": [f"checkpoint={diverged}", *small]}
    return run_forked("evaluate", commands, folder)


def test_evaluation_names_a_sweep_that_is_not_finite_and_goes_on(evaluated: dict[str, Done]) -> None:
    assert evaluated["sweep"].returncode == 0, evaluated["sweep"].stderr
    named = [line for line in evaluated["sweep"].stdout.splitlines() if line.startswith("not read, so nothing")]
    assert len(named) == 1 and "/0000/" in named[0] and "points are not finite" in named[0], evaluated["sweep"].stdout


def test_evaluation_whose_outputs_are_not_finite_is_one_line(evaluated: dict[str, Done]) -> None:
    assert evaluated["weights"].returncode == 2
    errors = [line for line in evaluated["weights"].stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in evaluated["weights"].stderr
    for part in ("in 3 of 3 sweeps, simulator-", "its weights are finite: look at these sweeps"):
        assert part in errors[0], errors[0]


def test_a_validation_sweep_that_is_not_finite_is_named(folder: Path) -> None:
    run = folder / "validation"
    broken = ["validation._target_=tests.tools.broken_sweeps.BrokenSweeps", "+validation.fault=nan_points"]
    done = run_forked("finetune", {"run": [*TINY, *broken, f"paths.run={run}"]}, folder)["run"]
    assert done.returncode == 0, done.stderr
    (line,) = (run / "faulty_samples.txt").read_text().splitlines()
    assert "points are not finite" in line and f"nothing can be found in validation sweep {line}" in done.stdout
