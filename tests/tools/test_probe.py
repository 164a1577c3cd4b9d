"""The probe as a user runs it: on a backbone's file and on a detector's, errors in one line."""

import json
from pathlib import Path

import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.checkpoint import save_backbone
from equilidar.data.simulator import SimulatedSweeps
from equilidar.structures import GridSpec
from tests.tools.forked import Done, run_forked

STREETS = [
    "dataset=simulator_small_labelled", "dataset.sensor.azimuth_steps=360", "dataset.sensor.beam_stride=4",
    "dataset.num_sequences=4", "dataset.frames_per_sequence=2", "num_workers=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    torch.manual_seed(0)
    grid = GridSpec.from_range([0.0, -12.8, -3.0, 25.6, 12.8, 1.0], [0.2, 0.2, 0.1])
    contract = SimulatedSweeps(num_sequences=1, frames_per_sequence=1).contract
    save_backbone(folder / "backbone.safetensors", VoxelBackBone8x(grid, 4, width=0.25), contract, {})
    file = f"checkpoint={folder / 'backbone.safetensors'}"
    return run_forked(
        "probe",
        {
            "linear": [file, *STREETS, "probe=linear", f"output={folder / 'linear.json'}"],
            "knn": [file, *STREETS, "probe=knn", f"output={folder / 'knn.json'}"],
            "one sequence": [file, *STREETS, "dataset.num_sequences=1"],
            "other points": [file, *STREETS, "dataset.rolling_shutter=true"],
            "no file": [f"checkpoint={folder / 'none.safetensors'}", *STREETS],
            "unknown probe": [file, *STREETS, "probe=svm"],
            "pairs": [file, "dataset=simulator_small"],
            "no cells": [file, *STREETS, "probe.per_class=0"],
            "no device": [file, *STREETS, "device=gpu"],
            "workers": [file, *STREETS, "num_workers=-1"],
        },
        folder,
    )


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_figures_beside_those_of_random_weights(done: dict[str, Done], folder: Path, probe: str) -> None:
    assert done[probe].returncode == 0, done[probe].stderr
    figures = json.loads((folder / f"{probe}.json").read_text())
    assert set(figures) == {"checkpoint", "scratch"}
    for own in figures.values():
        assert 0 < own["mean_iou"] < 1 and 0 < own["balanced_accuracy"] <= 1
    lines = done[probe].stdout.strip().splitlines()
    assert lines[-3].split()[:3] == ["backbone", "balanced", "accuracy"] and lines[-1].startswith("scratch")


def test_errors_are_one_line(done: dict[str, Done]) -> None:
    messages = {
        "one sequence": "all 2 sweeps are of one sequence",
        "other points": "the backbone was trained on points of",
        "no file": "none.safetensors",
        "unknown probe": "svm",
        "pairs": "dataset yields no labelled sweeps but pairs",
        "no cells": "per_class and steps must be at least 1",
        "no device": "device must be auto, cpu or cuda, got 'gpu'",
        "workers": "num_workers must be at least 0",
    }
    for name, message in messages.items():
        assert done[name].returncode == 2, (name, done[name].stderr)
        lines = done[name].stderr.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], (name, lines)
