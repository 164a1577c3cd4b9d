"""The quickstart's three stages, small: it ends with a report and metrics, and does not repeat what is done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("trainer.max_epochs=1", "dataset.num_sequences=5", "backbone.width=0.125", "loader.batch_size=2")


def quickstart(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "tools/quickstart.py", "--folder", str(folder), *SMALL],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_it_ends_with_a_report_and_does_not_repeat_itself(tmp_path: Path) -> None:
    done = quickstart(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["scratch", "pretrained"]
    for figures in metrics.values():
        assert figures["num_ground_truth"][1] >= 100
        assert {"3d@0.5", "3d@0.7"} <= figures.keys() and figures["seed"] == 0
    page = (tmp_path / "report.html").read_text()
    assert "one seed" in page.lower() and "pretrained" in page
    assert "One seed, one label subset" in done.stdout and str(tmp_path / "report.html") in done.stdout
    provenance = [json.loads((tmp_path / name / "provenance.json").read_text()) for name in metrics]
    hashes = {one["data"]["train"]["labels"]["hash"] for one in provenance}
    assert len(hashes) == 1, "both rows learn from the same labels"
    assert provenance[1]["backbone_hash"] and not provenance[0]["backbone_hash"]
    again = quickstart(tmp_path)
    assert again.returncode == 0 and again.stdout.count("done before") == 3


def test_a_stage_that_fails_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "tools/quickstart.py", "--folder", str(tmp_path), "no.such.key=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "stage pretrain failed" in done.stderr and "Traceback" not in done.stderr
