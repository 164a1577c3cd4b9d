"""Every oracle through the command: what is written as JSON, and what is printed."""

from pathlib import Path

import pytest

from tests.evaluation.calling import Call
from tests.evaluation.oracle_cases import cases, deviation, load, sibling

EVALUATORS = {
    "nuscenes": ("nuscenes_detection", "boxes.json", "boxes.json", 1e-9, "NDS"),
    "waymo": ("waymo_detection", "npz", "npz", 1e-5, "APH/L2"),
    "argoverse2": ("av2_detection", "annotations.feather", "detections.feather", 1e-6, "AVERAGE_METRICS"),
    "scene_flow": ("av2_scene_flow", "npz", "npz", 1e-9, "EPE 3-way average"),
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_oracle_through_the_command(oracles: Path, call: Call, tmp_path: Path, name: str) -> None:
    folder, truth, found, tolerance, printed = EVALUATORS[name]
    for path in cases(oracles / folder, "*.expected.json"):
        if not sibling(path, truth).is_file():
            continue
        words = [f"evaluator={name}", f"evaluator.ground_truth={sibling(path, truth)}", "output=figures/out.json"]
        done = call([*words, f"evaluator.detections={sibling(path, found)}"])
        assert done.returncode == 0, done.stderr
        assert printed in done.stdout
        assert deviation(load(tmp_path / "figures" / "out.json"), load(path), path.name) < tolerance, path.name


def test_oracle_kitti_through_the_command(oracles: Path, call: Call, tmp_path: Path) -> None:
    for path in cases(oracles / "kitti", "*/expected.json"):
        words = ["evaluator=kitti", f"evaluator.ground_truth={path.parent / 'gt'}", "output=out.json"]
        done = call([*words, f"evaluator.detections={path.parent / 'det'}"])
        assert done.returncode == 0, done.stderr
        got = load(tmp_path / "out.json")
        for name, metrics in load(path).items():
            for metric, figures in metrics.items():
                chosen = figures and {key: figures[key] for key in ("AP_R11", "AP_R40")}
                assert deviation(got[name][metric], chosen) < 1e-6, f"{path.parent.name} {name} {metric}"
