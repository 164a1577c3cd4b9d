"""Two-stage detectors as a user runs them: killed and continued, and real frames by heart."""

import json
import os
from pathlib import Path

import pytest
import torch

from equilidar.checkpoint.detector import read_detector

from .test_finetune import TINY, kill_after_step, losses, tool

DETECTORS = ("voxel_rcnn_small", "pv_rcnn_small")


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_killed_it_goes_on_to_the_same_detector(name: str, tmp_path: Path) -> None:
    """Proposals are drawn by the sweeps' seeds, dropout goes on from where it was."""
    command = (*TINY, f"detector={name}")
    whole, again = tmp_path / "whole", tmp_path / "again"
    done = tool("finetune", *command, f"paths.run={whole}")
    assert done.returncode == 0, done.stderr
    kill_after_step(2, again, *command, f"paths.run={again}")
    done = tool("finetune", *command, f"paths.run={again}")
    assert done.returncode == 0, done.stderr
    assert losses(again) == losses(whole)
    ours, theirs = (read_detector(folder / "detector.safetensors").tensors for folder in (again, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.loads((again / "metrics.json").read_text()) == json.loads((whole / "metrics.json").read_text())


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", DETECTORS)
def test_sample_frames_are_learned_by_heart(name: str, samples: Path, tmp_path: Path) -> None:
    """All labelled real frames: 3D AP R40 of moderate cars above 90, or recall above 95 % where few cars cap it."""
    if not (samples / "kitti_object").is_dir() or not (samples / "kitti_raw").is_dir():
        pytest.skip(f"no labelled KITTI frames under {samples}")
    run = tmp_path / "run"
    threads = str(max(1, (os.cpu_count() or 2) // 2))
    environment = {"EQUILIDAR_SAMPLES": str(samples), "OMP_NUM_THREADS": threads}
    done = tool("finetune", "+experiment=sample_finetune_kitti", f"detector={name}", f"paths.run={run}", **environment)
    assert done.returncode == 0, done.stderr
    car = json.loads((run / "metrics.json").read_text())["car"]["3d"]
    assert car["AP_R40"][1] > 90 or car["recall"][1] > 95, car
