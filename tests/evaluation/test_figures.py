"""The printed table, the configs, and the benchmark that prints the evaluator's time."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from equilidar.evaluation.figures import format_table
from equilidar.structures import Boxes3D, Detections, ObjectAnnotations

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_has_r40_before_r11_and_dashes_for_none() -> None:
    figures = {
        "car": {"3d": {"AP_R11": [1, 2, 3], "AP_R40": [4, 5, 6]}, "aos": None, "num_ground_truth": [7, 8, 9]},
    }
    lines = format_table(figures).splitlines()
    assert " ".join(lines[0].split()) == "class metric easy moderate hard (R40) easy moderate hard (R11)"
    assert lines[1].split() == ["car", "3d", "4.00", "5.00", "6.00", "1.00", "2.00", "3.00"]
    assert lines[2].split() == ["car", "aos", "-"]
    assert len(lines) == 3


def test_the_config_for_annotated_sweeps_evaluates_them() -> None:
    evaluate = instantiate(OmegaConf.load(ROOT / "configs" / "evaluator" / "simulated.yaml"), _convert_="all")
    boxes = Boxes3D.make(torch.zeros(1, 3), torch.tensor([[4.0, 1.8, 1.5]]), torch.zeros(1))
    zero = torch.zeros(1, dtype=torch.int64)
    truth = ObjectAnnotations(boxes, zero, zero, torch.zeros(1))
    names = ("Car", "Pedestrian", "Cyclist")
    figures = evaluate([truth], [Detections(boxes, torch.ones(1))], names)
    assert figures["car"]["3d@0.7"]["recall"] == [100, 100, 100]
    assert figures.keys() == {"car", "pedestrian", "cyclist"}


def test_the_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["kitti_evaluator.py", "--frames", "30"])
    runpy.run_path(str(ROOT / "benchmarks" / "kitti_evaluator.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for line in ("30 frames", "parsing", "compiling", "overlaps", "matching", "in all"):
        assert line in printed
