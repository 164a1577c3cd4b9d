"""Building a gt database and finetuning with it; other labels and pretraining refuse it in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parents[2]
DATA = (
    "dataset.sensor.azimuth_steps=360", "dataset.sensor.beam_stride=4",
    "dataset.num_sequences=4", "dataset.frames_per_sequence=2",
)  # fmt: skip
TINY = ("+experiment=finetune_tiny", "trainer.max_epochs=2", "loader.num_workers=1", "gt_sampling=kitti")


def tool(name: str, *overrides: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, f"tools/{name}.py", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    return errors[0]


def test_a_database_is_built_used_and_refused(tmp_path: Path) -> None:
    half = tmp_path / "half.arrow"
    built = tool("gt_database", *DATA, "labels.fraction=0.5", "labels.seed=1", "name=half", f"output={half}")
    assert built.returncode == 0, built.stderr
    done = tool("finetune", *TINY, "labels.fraction=0.5", "labels.seed=1", f"gt_sampling.database={half}",
                f"paths.run={tmp_path / 'run'}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    labels = provenance["data"]["train"]["labels"]
    assert provenance["gt_sampling"]["labels"]["hash"] == labels["hash"] and labels["hash"] in built.stdout
    assert labels["hash"] in done.stdout + done.stderr

    other = tool("finetune", *TINY, f"gt_sampling.database={half}", f"paths.run={tmp_path / 'other'}")
    line = one_line(other)
    assert f"built from label subset {labels['hash']}" in line and "this run trains on" in line
    missing = tool("finetune", *TINY, f"gt_sampling.database={tmp_path / 'none'}", f"paths.run={tmp_path / 'other'}")
    assert "no gt database" in one_line(missing)
    refused = tool("pretrain", "+experiment=pretrain_tiny", "+gt_sampling=kitti", f"paths.run={tmp_path / 'pretrain'}")
    assert "gt_sampling pastes labelled objects, and pretraining uses no labels" in one_line(refused)


@pytest.mark.parametrize("labels", [[], ["labels.fraction=0.05", "labels.seed=2"], ["labels.mode=sequence"]])
def test_the_experiment_looks_for_the_database_where_the_tool_writes_it(labels: list[str]) -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        built = compose("gt_database", ["dataset=kitti_object", "name=kitti_train", *labels])
        used = compose("finetune", ["+experiment=second_kitti", *labels])
    assert built.output == used.gt_sampling.database
