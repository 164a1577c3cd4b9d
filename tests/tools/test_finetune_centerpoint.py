"""CenterPoint and its backbone as a user runs them: pretrained, handed over, finetuned, evaluated, learned by heart."""

import json
import os
from pathlib import Path

import pytest

from equilidar.checkpoint import read_backbone
from equilidar.checkpoint.detector import read_detector

from .test_finetune import TINY, tool

RESIDUAL = ("backbone=voxel_residual", "backbone.width=0.25")


def test_a_pretrained_residual_backbone_is_finetuned_to_centerpoint(tmp_path: Path) -> None:
    pretrained, run = tmp_path / "pretrained", tmp_path / "run"
    short = ("+experiment=pretrain_tiny", "trainer.max_epochs=1", "loader.num_workers=0")
    done = tool("pretrain", *short, *RESIDUAL, f"paths.run={pretrained}")
    assert done.returncode == 0, done.stderr
    (backbone,) = pretrained.glob("*.safetensors")
    assert read_backbone(backbone).identity.backbone == "equilidar.VoxelResBackBone8x"

    chosen = (*RESIDUAL, "detector=centerpoint_small", "init=pretrained", f"init.path={backbone}")
    done = tool("finetune", *TINY, *chosen, f"paths.run={run}")
    assert done.returncode == 0, done.stderr
    figures = json.loads((run / "metrics.json").read_text())
    assert set(figures) == {"car", "pedestrian", "cyclist"} and list((run / "detections").rglob("*.txt"))
    saved = read_detector(run / "detector.safetensors")
    assert saved.provenance["backbone_hash"] == read_backbone(backbone).identity.content_hash
    assert {name.split(".")[0] for name in saved.tensors} == {"backbone", "neck", "head"}

    validation = (
        "dataset=simulator_small_labelled",
        "dataset.sensor.azimuth_steps=360",
        "dataset.sensor.beam_stride=4",
        "dataset.num_sequences=2",
        "dataset.frames_per_sequence=2",
        "dataset.seed=2000",
    )
    again = tmp_path / "figures.json"
    checkpoint = f"checkpoint={run / 'detector.safetensors'}"
    done = tool("evaluate", checkpoint, *validation, f"output={again}", "num_workers=0")
    assert done.returncode == 0, done.stderr
    assert json.loads(again.read_text()) == figures


def test_classes_that_the_dataset_lacks_are_one_line(tmp_path: Path) -> None:
    done = tool("finetune", *TINY, "detector=centerpoint_waymo", f"paths.run={tmp_path / 'run'}")
    assert done.returncode == 2 and "no class Vehicle" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.learning
@pytest.mark.timeout(3600)
def test_simulated_sweeps_are_learned_by_heart(tmp_path: Path) -> None:
    """Six sweeps, trained and validated on: every car that counts is found at 3D IoU 0.7, with none that is false.

    With so few cars the average precision is capped by their number, not by what is found.
    """
    run = tmp_path / "run"
    sweeps = ("grid=sim_small", "dataset.sensor.azimuth_steps=720", "dataset.sensor.beam_stride=2")
    sweeps += ("dataset.num_sequences=3", "dataset.frames_per_sequence=2", "validation=${dataset}")
    still = ("augment.group.yaw=[0.0,0.0]", "augment.group.scale=[1.0,1.0]", "augment.group.flip_probability=0.0")
    norms = ("backbone.norm_momentum=0.1", "detector.neck.norm_momentum=0.1")
    long = ("trainer.max_epochs=80", "trainer.check_val_every_n_epoch=80", "optimizer.lr=2e-3", "loader.batch_size=2")
    threads = str(max(1, (os.cpu_count() or 2) // 2))
    done = tool(
        "finetune", "+experiment=finetune_tiny", "detector=centerpoint_small", "backbone.width=0.5",
        "loader.num_workers=0", *sweeps, *still, *norms, *long, f"paths.run={run}", OMP_NUM_THREADS=threads,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    car = json.loads((run / "metrics.json").read_text())["car"]
    count, found = car["num_ground_truth"][1], car["3d@0.7"]
    assert found["recall"][1] > 95, found
    assert found["AP_R40"][1] > 0.9 * 100 * min(1.0, (count - 1) / 40), found
