"""The command that writes lists of label subsets."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def splits(*overrides: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "tools/splits.py", *overrides]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)


def test_lists_from_an_index_and_from_a_dataset(tmp_path: Path) -> None:
    index = tmp_path / "train.txt"
    index.write_text("\n".join(f"{i:06d}" for i in range(200)))
    done = splits(f"index={index}", "prefix=own/day/", "name=own", f"output={tmp_path}", "text=true")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "own_frame.json").read_text())
    assert (content["num"], content["prefix"]) == (200, "own/day/")
    assert len((tmp_path / "own_frame_0.05_seed2.txt").read_text().split()) == 10
    assert content["hashes"]["0"]["0.05"] in done.stdout

    overrides = ("dataset=simulator_labelled", "name=simulator_labelled", "mode=sequence", f"output={tmp_path}")
    assert splits(*overrides).returncode == 0
    published = ROOT / "equilidar" / "data" / "label_lists" / "simulator_labelled_sequence.json"
    assert (tmp_path / published.name).read_bytes() == published.read_bytes()


def test_errors_are_one_line(tmp_path: Path) -> None:
    index = tmp_path / "train.txt"
    index.write_text("a\nb\n")
    cases = {
        ("name=own",): "give either dataset=NAME or index=FILE",
        ("name=own", f"index={tmp_path / 'none.txt'}"): "index: no file",
        ("name=own", f"index={index}", "mode=scene"): "mode must be frame or sequence",
        ("name=own", f"index={index}", "mode=sequence"): "all 2 sweeps are of one sequence",
        ("name=kitti_train", f"index={index}"): "expects 3712 frames with index hash",
        ("name=own", f"index={index}", "fractions=[0.1,2]"): "labels.fraction must lie in (0, 1], got 2",
    }
    for overrides, message in cases.items():
        done = splits(*overrides, f"output={tmp_path / 'lists'}")
        assert done.returncode == 2, (overrides, done.stderr)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1 and message in lines[0], (overrides, done.stderr)
