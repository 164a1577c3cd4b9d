"""The av2 package's figures of scene flow, on every set that lies among the oracles."""

from pathlib import Path

from equilidar.evaluation.scene_flow_evaluator import SceneFlowEvaluator
from tests.evaluation.oracle_cases import cases, deviation, load, sibling


def test_oracle_scene_flow(oracles: Path) -> None:
    for path in cases(oracles / "av2_scene_flow", "*.expected.json"):
        arrays = sibling(path, "npz")
        got = SceneFlowEvaluator(arrays, arrays).evaluate()
        assert list(got["totals"]) == list(load(path)["totals"])
        assert deviation(got, load(path), path.name) < 1e-9, path.name
        assert SceneFlowEvaluator(arrays, arrays).check()
