"""The official op's figures and curves, on every set that lies among the oracles."""

from pathlib import Path

import numpy as np
import pytest

from equilidar.evaluation.waymo_evaluator import WaymoEvaluator
from tests.evaluation.oracle_cases import cases, deviation, load, sibling

TOLERANCE = 1e-5


def test_oracle_waymo(oracles: Path, tmp_path: Path) -> None:
    compared = 0
    for path in cases(oracles / "waymo_detection", "*.expected.json"):
        boxes = sibling(path, "npz")
        if not boxes.is_file():
            continue
        evaluator = WaymoEvaluator(boxes, boxes, curves=tmp_path / "curves.npz")
        expected = {metric: load(path)[metric] for metric in ("AP", "APH")}
        got = evaluator.evaluate()
        assert {metric: list(got[metric]) for metric in got} == {metric: list(expected[metric]) for metric in expected}
        assert deviation(got, expected, path.name) < TOLERANCE, path.name
        compared += 1
        curves = sibling(path, "curves.npz")
        if curves.is_file():
            _compare_curves(np.load(tmp_path / "curves.npz"), np.load(curves), path.name)
    assert compared, "no set with boxes found"


def _compare_curves(got: np.lib.npyio.NpzFile, expected: np.lib.npyio.NpzFile, where: str) -> None:
    assert got["names"].tolist() == expected["names"].tolist(), where
    np.testing.assert_array_equal(got["pr"][..., 2:], expected["pr"][..., 2:], err_msg=where)
    np.testing.assert_allclose(got["pr"], expected["pr"], rtol=0, atol=TOLERANCE, err_msg=where)
    width = got["pr_heading"].shape[-1]
    np.testing.assert_allclose(
        got["pr_heading"], expected["pr_heading"][..., :width], rtol=0, atol=TOLERANCE, err_msg=where
    )


@pytest.mark.parametrize("kind", ["bin", "json"])
def test_oracle_and_sample_waymo_objects(oracles: Path, samples: Path, kind: str) -> None:
    """The official tool's own example, whose expected figures lie apart from its boxes."""
    folder = samples / "oracles" / "waymo_detection"
    truth, found = folder / f"fake_ground_truths.{kind}", folder / f"fake_predictions.{kind}"
    if not truth.is_file():
        pytest.skip(f"no {truth}")
    expected = load(cases(oracles / "waymo_detection", "official_fake*.expected.json")[0])
    got = WaymoEvaluator(truth, found).evaluate()
    assert deviation(got, {metric: expected[metric] for metric in ("AP", "APH")}) < TOLERANCE
    assert WaymoEvaluator(truth, found).check()


def test_oracle_waymo_files_pass_the_preflight(oracles: Path) -> None:
    for path in cases(oracles / "waymo_detection", "*.expected.json"):
        if (boxes := sibling(path, "npz")).is_file():
            # Some sets hold frames without objects or without detections on purpose.
            assert WaymoEvaluator(boxes, boxes, sparse=True).check()
