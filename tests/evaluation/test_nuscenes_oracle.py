"""The development kit's figures, on every set that lies among the oracles."""

from pathlib import Path

from equilidar.evaluation.nuscenes_evaluator import NuscenesEvaluator
from tests.evaluation.oracle_cases import cases, deviation, load, sibling


def test_oracle_nuscenes(oracles: Path) -> None:
    for path in cases(oracles / "nuscenes_detection", "*.expected.json"):
        boxes = sibling(path, "boxes.json")
        got = NuscenesEvaluator(boxes, boxes).evaluate()
        assert list(got) == list(load(path)), path.name
        assert deviation(got, load(path), path.name) < 1e-9, path.name


def test_oracle_nuscenes_files_pass_the_preflight(oracles: Path) -> None:
    for path in cases(oracles / "nuscenes_detection", "*.boxes.json"):
        assert NuscenesEvaluator(path, path).check()
