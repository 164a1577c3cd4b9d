"""The command as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = "Car 0.00 0 -1.57 10.00 20.00 110.00 80.00 1.50 1.60 3.90 2.00 1.70 15.00 -1.44"


def _call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "evaluate.py"), "evaluator=kitti", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, check=False)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for folder, row in (("gt", ROW), ("det", ROW + " 0.5")):
        (tmp_path / folder).mkdir()
        for frame in ("000000", "000001"):
            (tmp_path / folder / f"{frame}.txt").write_text(row + "\n")
    return tmp_path


def test_writes_the_figures_and_nothing_else(folders: Path) -> None:
    done = _call(folders, "evaluator.ground_truth=gt", "evaluator.detections=det", "output=figures/ap.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((folders / "figures" / "ap.json").read_text())
    assert figures.keys() == {"car", "pedestrian", "cyclist"}
    for metric in ("bbox", "aos", "bev", "3d"):
        assert figures["car"][metric]["AP_R40"] == pytest.approx([2.5] * 3)
        assert figures["car"][metric]["AP_R11"] == pytest.approx([100 / 11] * 3)
        assert figures["cyclist"][metric] is None
    assert "car" in done.stdout
    assert {path.name for path in folders.iterdir()} == {"gt", "det", "figures"}
    assert [path.name for path in (folders / "figures").iterdir()] == ["ap.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluator.ground_truth=nowhere", "evaluator.detections=det"), "no folder nowhere"),
        (("evaluator.ground_truth=gt", "evaluator.detections=gt"), "gt/000000.txt:1: 15 columns"),
        (("evaluator.detections=det",), "evaluator.ground_truth"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(folders: Path, arguments: tuple[str, ...], message: str) -> None:
    done = _call(folders, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
