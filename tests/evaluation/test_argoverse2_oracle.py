"""The figures of the av2 package, with and without pruning by map, on every set that lies among the oracles."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from equilidar.evaluation.argoverse2_evaluator import Argoverse2Evaluator
from tests.evaluation.oracle_cases import cases, deviation, load, sibling


def test_oracle_argoverse2(oracles: Path) -> None:
    for path in cases(oracles / "av2_detection", "*.expected.json"):
        truth, found = sibling(path, "annotations.feather"), sibling(path, "detections.feather")
        got = Argoverse2Evaluator(truth, found).evaluate()
        assert list(got) == list(load(path)), path.name
        assert deviation(got, load(path), path.name) < 1e-6, path.name
        assert Argoverse2Evaluator(truth, found, sparse=True).check()


def test_oracle_and_sample_argoverse2_pruned_by_map(oracles: Path, samples: Path) -> None:
    for path in cases(oracles, "av2_detection_roi*/*expected.json"):
        expected = load(path)
        log = samples / "argoverse2" / "sensor" / expected["log_id"]
        if not log.is_dir():
            pytest.skip(f"no log {log}")
        found = path.parent / path.name.replace("expected.json", "detections.feather")
        for truth in (log, log / "annotations.feather"):
            got = Argoverse2Evaluator(truth, found, frames=path).evaluate()
            for part in ("roi", "no_roi"):
                for side in ("detection", "annotation"):
                    key = f"evaluated_{side}_rows"
                    differing = set(got[part].pop(key)) ^ set(expected[part][key])
                    # Pillow's filling is that of the official tool, of the same version at least.
                    assert len(differing) <= 3, f"{path} {part} {key}: {differing}"
                    expected[part][key] = None
                    got[part][key] = None
                assert deviation(got[part], expected[part], part) < 2e-3
            assert got["metrics"] == got["roi"]["metrics"]
            expected = load(path)
        assert deviation(Argoverse2Evaluator(log, found, roi=False, frames=path).evaluate(), _plain(expected)) < 1e-6
        assert "region of interest" in "\n".join(Argoverse2Evaluator(log, found, frames=path).check())


def _plain(expected: dict) -> dict:
    return {key: expected["no_roi"][key] for key in ("columns", "metrics")}


def test_sample_argoverse2_of_the_packages_own_tests(samples: Path, tmp_path: Path) -> None:
    for path in cases(samples / "oracles" / "av2_detection", "expected_metrics.json"):
        expected = load(path)
        categories = expected["config"]["categories"]
        for case in expected["cases"]:
            found, truth = path.parent / case["dts"], path.parent / case["gts"]
            if not truth.is_file():
                # "the same rows with num_interior_pts=1"
                table = pyarrow.feather.read_table(found)
                truth = tmp_path / "same.feather"
                points = pa.array(np.ones(table.num_rows, np.int64))
                pyarrow.feather.write_feather(table.append_column("num_interior_pts", points), truth)
            figures = Argoverse2Evaluator(truth, found, categories=categories).evaluate()
            got = dict(zip(figures["columns"], figures["metrics"]["AVERAGE_METRICS"], strict=True))
            for name, value in case["expected_AVERAGE_METRICS"].items():
                assert round(got[name], 3) == pytest.approx(value, abs=1e-9), f"{case['dts']} {name}"
