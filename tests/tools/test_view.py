"""tools/view.py as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ["dataset.sensor.azimuth_steps=90", "dataset.sensor.beam_stride=8", "dataset.num_sequences=1"]


def view(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "view.py"), *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("dataset", ["simulator_small_labelled", "simulator_small_exact_flow"])
def test_a_picture_and_counts(tmp_path: Path, dataset: str) -> None:
    done = view(tmp_path, f"dataset={dataset}", *TINY, "output=out/sweep.png")
    assert done.returncode == 0, done.stderr
    assert "points" in done.stdout
    assert ("Car:" in done.stdout) == dataset.endswith("labelled")
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 10_000


def test_an_index_out_of_range_is_one_line(tmp_path: Path) -> None:
    done = view(tmp_path, *TINY, "index=999")
    assert done.returncode == 2
    assert "index" in done.stderr
    assert "Traceback" not in done.stderr
