"""Reading run directories: whole, resumed, partial, damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from equilidar.report.run_summary import RunSummary, read_series

from .fake_runs import write_run


def test_a_finetuned_run(tmp_path: Path) -> None:
    run = RunSummary.read(write_run(tmp_path / "a", command="finetune", init="scratch", seed=3, ap=41.5))
    assert (run.label, run.command, run.seed) == ("scratch", "finetune", 3)
    assert run.figures is not None
    assert run.figures["car"]["3d@0.5"]["AP_R40"][1] == 41.5
    assert run.series["train/loss"].steps[:3].tolist() == [0, 3, 6]
    assert run.series["val/headline"].steps.tolist() == [0, 150, 300, 450, 600, 750]
    assert run.pictures == ()


def test_a_pretraining_run_has_no_figures(tmp_path: Path) -> None:
    run = RunSummary.read(write_run(tmp_path / "a", command="pretrain"))
    assert run.figures is None
    assert run.label == "pretraining"
    assert RunSummary.read(tmp_path / "a", "mine").label == "mine"


def test_a_resumed_run_counts_each_step_once(tmp_path: Path) -> None:
    for number, rows in ((2, "0,9.0\n1,8.0\n2,7.0\n"), (10, "2,5.0\n3,4.0\n")):
        folder = tmp_path / f"version_{number}"
        folder.mkdir()
        (folder / "metrics.csv").write_text("step,train/loss\n" + rows)
    series = read_series(tmp_path)["train/loss"]
    assert series.steps.tolist() == [0, 1, 2, 3]
    assert series.values.tolist() == [9, 8, 5, 4]
    assert series.last == 4


def test_gaps_and_a_line_cut_short_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,a,b\n0,0,1.5,\n0,1,nan,2.5\n0,2,,inf\n1,3")
    series = read_series(tmp_path)
    assert series.keys() == {"a", "b"}
    np.testing.assert_array_equal(series["a"].values, [1.5])
    np.testing.assert_array_equal(series["b"].steps, [1])


@pytest.mark.parametrize("name", ["metrics.csv", "provenance.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "a", command="finetune", ap=1)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"no {name} in {folder}"):
        RunSummary.read(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no run directory {tmp_path}/nowhere"):
        RunSummary.read(tmp_path / "nowhere")


def test_an_unfinished_run_is_an_error(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", command="finetune", ap=1)
    (folder / "finished.json").unlink()
    with pytest.raises(ValueError, match="unfinished run"):
        RunSummary.read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "metrics.json is no JSON"),
        ("[1]", "metrics.json must hold an object, got list"),
        (json.dumps({"car": {"3d": None}, "loss": 3}), "metrics.json holds no average precision"),
    ],
)
def test_damaged_figures_are_named(tmp_path: Path, text: str, message: str) -> None:
    folder = write_run(tmp_path / "a", command="finetune", ap=1)
    (folder / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        RunSummary.read(folder)
