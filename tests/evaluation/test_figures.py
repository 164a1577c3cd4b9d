"""The printed table, the configs, and the benchmark that prints the evaluator's time."""

import runpy
import sys
from pathlib import Path

import pytest

from equilidar.evaluation.figures import format_table

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


def test_the_benchmark_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["kitti_evaluator.py", "--frames", "30"])
    runpy.run_path(str(ROOT / "benchmarks" / "kitti_evaluator.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for line in ("30 frames", "parsing", "compiling", "overlaps", "matching", "in all"):
        assert line in printed
