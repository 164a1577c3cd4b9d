"""The benchmark that prints the evaluators' times."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_benchmark_runs_without_official_tools() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "evaluators.py"), "--frames", "0.001", "--peer", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    for word in (
        "6 samples, each 200 detections and 30 ground truths",
        "40 frames",
        "compile",
        "parse",
        "wall",
        "peak",
    ):
        assert word in done.stdout
