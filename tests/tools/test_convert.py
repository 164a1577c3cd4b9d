"""Conversion as a user runs it: what comes out is used at once, and every failure is one clear line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from equilidar.checkpoint import read_backbone
from equilidar.checkpoint.detector import read_detector
from tests.checkpoint.foreign_states import (
    MM_PLAIN,
    OPENPCDET_PLAIN,
    OPENPCDET_RESIDUAL,
    plain_layers,
    residual_layers,
    state,
    stored_as,
)
from tests.tools.forked import Done, run_forked

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("grid=sim_tiny",)
BACKBONE = state(plain_layers(), OPENPCDET_PLAIN, "backbone_3d.")


def tool(name: str, *overrides: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, f"tools/{name}.py", *overrides],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def detector_state() -> dict[str, torch.Tensor]:
    """SECOND for KITTI by its documented names and shapes: 163 tensors."""
    generator = torch.Generator().manual_seed(5)
    tensors = {"global_step": torch.tensor([37120]), **BACKBONE}

    def add(conv: str, shape: tuple[int, ...], norm: str | None) -> None:
        tensors[f"{conv}.weight"] = torch.randn(shape, generator=generator) * 0.02
        if norm is None:
            tensors[f"{conv}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
            return
        width = shape[1] if "deblocks" in conv else shape[0]
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{norm}.{name}"] = torch.rand(width, generator=generator) + 0.5
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(9)

    for level, (inputs, width) in enumerate(((256, 128), (128, 256))):
        for place in range(6):
            name = f"backbone_2d.blocks.{level}"
            first = inputs if place == 0 else width
            add(f"{name}.{1 + 3 * place}", (width, first, 3, 3), f"{name}.{2 + 3 * place}")
    for level, width in enumerate((128, 256)):
        name, size = f"backbone_2d.deblocks.{level}", level + 1
        add(f"{name}.0", (width, 256, size, size), f"{name}.1")
    for name, outputs in (("cls", 18), ("box", 42), ("dir_cls", 12)):
        add(f"dense_head.conv_{name}", (outputs, 512, 1, 1), None)
    return tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of other code bases."""
    folder = tmp_path_factory.mktemp("foreign")
    torch.save({"epoch": 80, "model_state": detector_state(), "optimizer_state": None}, folder / "second.pth")
    torch.save({"model_state": stored_as(BACKBONE, "rsck")}, folder / "old.pth")
    torch.save({"model_state": state(plain_layers(5), OPENPCDET_PLAIN, "backbone_3d.")}, folder / "five.pth")
    torch.save({"state_dict": state(plain_layers(), MM_PLAIN, "pts_middle_encoder.")}, folder / "mm.pth")
    torch.save({"model_state": state(residual_layers(4), OPENPCDET_RESIDUAL, "backbone_3d.")}, folder / "res.pth")
    lacking = {name: value for name, value in BACKBONE.items() if "conv_out" not in name}
    torch.save({"model_state": lacking}, folder / "lacking.pth")
    two = {**state(plain_layers(), OPENPCDET_PLAIN, "teacher."), **state(plain_layers(), OPENPCDET_PLAIN, "student.")}
    torch.save({"state_dict": two}, folder / "two.pth")
    torch.save({"model_state": BACKBONE, "config": Path("x")}, folder / "pickled.pth")
    square = {name: value for name, value in BACKBONE.items() if value.dim() != 5 or value.shape[0] == value.shape[4]}
    stem = state([((3, 3, 3), 16, 16, False)], [("conv_input.0", "conv_input.1")], "backbone_3d.")
    torch.save({"model_state": stored_as({**square, **stem}, "rskc")}, folder / "square.pth")
    torch.save({"model_state": {**BACKBONE, "global_step": torch.tensor([1, 2])}}, folder / "steps.pth")
    record = dict.fromkeys(("backbone_class", "in_features", "voxel_size", "range", "box_convention"), 0)
    record |= {"format": 1, "spconv_layout": "krsc"}
    torch.save({"model_state": BACKBONE, "equilidar": record}, folder / "record.pth")
    (folder / "text.pth").write_text("nothing of use")
    return folder


def test_a_backbone_goes_into_finetuning(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "backbone.safetensors"
    done = tool("convert", f"input={folder / 'mm.pth'}", "source=mmdet3d", f"output={out}", *SMALL)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    for row in (["encoder_layers", "60", "0", "0", "0", "0"], ["total", "72", "0", "0", "0", "0"]):
        assert row in rows, done.stdout
    assert "found under pts_middle_encoder." in done.stdout
    saved = read_backbone(out)
    assert saved.provenance["imported"]["source"] == "mmdet3d" and saved.provenance["imported"]["coverage"] == 1
    init = ("init=frozen", f"init.path={out}", "backbone.width=1.0", "trainer.max_epochs=1", "loader.num_workers=0")
    run = tmp_path / "run"
    done = tool("finetune", "+experiment=finetune_tiny", *init, f"paths.run={run}")
    assert done.returncode == 0, done.stderr
    detector = read_detector(run / "detector.safetensors")
    expected = state(plain_layers(), OPENPCDET_PLAIN)
    assert all(torch.equal(detector.tensors[f"backbone.{name}"], value) for name, value in expected.items())


def convert_detector(folder: Path, output: Path) -> Path:
    out = output / "detector.safetensors"
    given = (f"input={folder / 'second.pth'}", "source=openpcdet", "detector=second")
    done = tool("convert", *given, f"output={out}", *SMALL)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[:2] for line in done.stdout.splitlines()]
    assert rows[-6:-2] == [["backbone_3d", "72"], ["backbone_2d", "84"], ["dense_head", "6"], ["total", "162"]]
    return out


@pytest.mark.slow
def test_a_detector_goes_into_evaluation(folder: Path, tmp_path: Path) -> None:
    out = convert_detector(folder, tmp_path)
    data = ("dataset=simulator_small_labelled", "dataset.num_sequences=1", "dataset.frames_per_sequence=1",
            "dataset.sensor.azimuth_steps=180", "dataset.sensor.beam_stride=8")  # fmt: skip
    figures = tmp_path / "figures.json"
    done = tool("evaluate", f"checkpoint={out}", *data, f"output={figures}", "num_workers=0")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(figures.read_text())) == {"car", "pedestrian", "cyclist"}


def test_a_detector_comes_back(folder: Path, tmp_path: Path) -> None:
    out, back = convert_detector(folder, tmp_path), tmp_path / "back.pth"
    done = tool("convert", f"input={out}", "source=equilidar", f"output={back}")
    assert done.returncode == 0, done.stderr
    content = torch.load(back, weights_only=True)
    expected = detector_state()
    assert content["epoch"] == 80 and list(content["model_state"]) == list(expected) and len(expected) == 163
    for name, value in expected.items():
        assert torch.equal(content["model_state"][name], value), name
    record = content["equilidar"]
    assert record["spconv_layout"] == "krsc" and record["voxel_size"] == [0.2, 0.2, 0.1]
    only = tmp_path / "only.safetensors"
    done = tool("convert", f"input={out}", "source=equilidar", "part=backbone", "target=equilidar", f"output={only}")
    assert done.returncode == 0, done.stderr
    assert len(read_backbone(only).tensors) == 72


# File, overrides, and parts of the one line.
FAILURES: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "no file": ("none.pth", [], ("no checkpoint at", "none.pth")),
    "no checkpoint": ("text.pth", [], ("text.pth is damaged",)),
    "pickled classes": ("pickled.pth", [], ("pickled.pth", "holds more than tensors", "PosixPath")),
    "no source": ("second.pth", ["source=???"], ("source must be given",)),
    "unknown source": ("second.pth", ["source=pcdet"], ("source must be one of openpcdet, mmdet3d, det3d",)),
    "foreign as ours": ("second.pth", ["source=equilidar", "target=openpcdet", "output=x.pth"], ("second.pth",)),
    "other code base": ("mm.pth", [], ("covers", "unexpected like encoder_layers")),
    "missing": ("lacking.pth", [], ("covers 91.7% of the VoxelBackBone8x", "6 missing like conv_out.0.weight")),
    "residual": ("res.pth", [], ("its backbone is residual (backbone=voxel_residual)",)),
    "wrong layout": ("old.pth", ["layout=spconv2"], ("not stored as layout=spconv2", "try rsck")),
    "no such layout": ("old.pth", ["layout=spconv3"], ("layout must be one of krsc, rsck, rskc",)),
    "ambiguous layout": (
        "square.pth",
        ["contract.channels=[a,b,c,d,e,f,g,h,i,j,k,l,m]", "contract.scales=[1,1,1,1,1,1,1,1,1,1,1,1,1]"],
        ("fit layout rsck and rskc", "layout=rsck (spconv 1.x)"),
    ),
    "input columns": ("five.pth", [], ("5 input columns in the file, 4 here", "input_features=copy")),
    "nothing to pad": ("five.pth", ["input_features=zero_pad"], ("nothing to pad",)),
    "two networks": ("two.pth", [], ("'student.', 'teacher.'", "choose one by prefix=")),
    "width": ("second.pth", ["backbone=voxel_plain_half"], ("covers 16.7%", "mis-shaped like conv_input")),
    "heads of others": ("mm.pth", ["source=mmdet3d", "detector=second"], ("only backbones are imported",)),
    "detector alone": ("old.pth", ["detector=second"], ("90 missing like backbone_2d.blocks.0.1.weight",)),
    "suffix": ("second.pth", ["output=x.pth"], ("target=equilidar is written as *.safetensors, got x.pth",)),
    "target": ("second.pth", ["target=mmdet3d"], ("target must be equilidar or openpcdet",)),
    "part": ("second.pth", ["part=head"], ("part must be null or one of backbone, detector",)),
    "contract": ("second.pth", ["contract.scales=[1.0,2.0]"], ("1 channels but 2 scales",)),
    "channels": ("second.pth", ["contract.channels=intensity"], ("contract.channels must be a list of names",)),
    "scales": ("second.pth", ["contract.scales=[a]"], ("contract.scales one of numbers",)),
    "frame": ("second.pth", ["contract.frame=world"], ("contract.frame must be sensor or ego",)),
    "grid": ("second.pth", ["grid.voxel_size=[0.2,0.2,0.2]"], ("grid does not fit VoxelBackBone8x",)),
    "key": ("second.pth", ["input_feature=copy"], ("input_feature", "nearest known")),
    "threshold": ("second.pth", ["threshold=2"], ("threshold must lie above 0",)),
}
SUCCESSES: dict[str, tuple[str, list[str], tuple[str, ...]]] = {
    "old layout": ("old.pth", [], ("12", "reordered from rsck to krsc")),
    "old layout, named": ("old.pth", ["layout=spconv1"], ("reordered from rsck to krsc",)),
    "threshold": ("lacking.pth", ["threshold=0.9"], ("missing: conv_out.0.weight",)),
    "dropped column": ("five.pth", ["input_features=copy"], ("the shared ones are copied",)),
    "strange counter": ("steps.pth", [], ("left out, not of the VoxelBackBone8x: global_step",)),
    "strange record": ("record.pth", [], ("total",)),
    "teacher": ("two.pth", ["prefix=teacher."], ("found under teacher.",)),
    "backbone alone": ("second.pth", [], ("left out, not of the VoxelBackBone8x: backbone_2d, dense_head",)),
}


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, Done]:
    commands = {}
    for kind, cases in (("fails", FAILURES), ("works", SUCCESSES)):
        for name, (file, overrides, _) in cases.items():
            given = {text.partition("=")[0] for text in overrides}
            output = folder / f"{kind} {name}.safetensors"
            usual = {"source": "source=openpcdet", "output": f"output='{output}'"}
            rest = [text for key, text in usual.items() if key not in given]
            overrides = [text for text in overrides if not text.endswith("=???")]
            commands[f"{kind} {name}"] = [f"input={folder / file}", *rest, *SMALL, *overrides]
    return run_forked("convert", commands, folder)


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_one_clear_line_and_leaves_no_file(runs: dict[str, Done], folder: Path, name: str) -> None:
    done = runs[f"fails {name}"]
    assert done.returncode == 2 and "Traceback" not in done.stderr, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    for part in FAILURES[name][2]:
        assert part in lines[0], lines[0]
    assert not (folder / f"fails {name}.safetensors").exists()


@pytest.mark.parametrize("name", SUCCESSES)
def test_what_is_asked_for_is_done_and_said(runs: dict[str, Done], folder: Path, name: str) -> None:
    done = runs[f"works {name}"]
    assert done.returncode == 0, done.stderr
    for part in SUCCESSES[name][2]:
        assert part in done.stdout, done.stdout
    assert len(read_backbone(folder / f"works {name}.safetensors").tensors) == 72
