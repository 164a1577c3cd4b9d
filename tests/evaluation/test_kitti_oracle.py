"""The official tool's figures, on every set that lies among the oracles."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equilidar.evaluation.kitti import DIFFICULTIES, KittiEvaluation, evaluate_folders, list_frames
from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable, read_labels, read_results

MMDET_CLASSES = ("pedestrian", "cyclist", "car")


def _cases(folder: Path, pattern: str) -> list[Path]:
    cases = sorted(folder.glob(pattern))
    if not cases:
        pytest.skip(f"no {pattern} in {folder}")
    return cases


def test_oracle_official_curves(oracles: Path) -> None:
    for path in _cases(oracles / "kitti", "*/expected.json"):
        expected = json.loads(path.read_text())
        frames = list_frames(path.parent / "gt")
        labels, results = read_labels(path.parent / "gt", frames), read_results(path.parent / "det", frames)
        curves = KittiEvaluation(labels, results).curves()
        for name, by_metric in expected.items():
            for metric, figures in by_metric.items():
                where = f"{path.parent.name} {name} {metric}"
                if figures is None:
                    assert curves[name][metric] is None, where
                    continue
                got = [c.similarity if metric == "aos" else c.precision for c in curves[name][metric]]
                np.testing.assert_allclose(got, figures["curve"], rtol=0, atol=1e-9, err_msg=where)


def test_oracle_official_average_precision(oracles: Path) -> None:
    for path in _cases(oracles / "kitti", "*/expected.json"):
        expected = json.loads(path.read_text())
        got = evaluate_folders(path.parent / "gt", path.parent / "det")
        assert {name: set(metrics) for name, metrics in got.items()} == {n: set(m) for n, m in expected.items()}
        for name, by_metric in expected.items():
            for metric, figures in by_metric.items():
                where = f"{path.parent.name} {name} {metric}"
                if figures is None:
                    assert got[name][metric] is None, where
                    continue
                for key in ("AP_R11", "AP_R40"):
                    np.testing.assert_allclose(got[name][metric][key], figures[key], rtol=0, atol=1e-6, err_msg=where)


def _table(case: dict[str, Any], prefix: str) -> KittiTable:
    num = len(case[f"{prefix}_name"])
    values = np.full((num, 15), np.nan)
    columns = {"truncated": 0, "occluded": 1, "alpha": 2, "rotation_y": 13, "score": 14}
    for name, column in columns.items():
        values[:, column] = case.get(f"{prefix}_{name}", np.full(num, np.nan))
    values[:, 3:7] = case[f"{prefix}_bbox"]
    # The literals are length, height, width as in that project's arrays.
    values[:, 7:10] = np.array(case.get(f"{prefix}_dimensions", np.full((num, 3), -1.0)))[:, [1, 2, 0]]
    values[:, 10:13] = case.get(f"{prefix}_location", np.full((num, 3), -1000.0))
    kind = np.array([KITTI_CLASSES.index(name.lower()) for name in case[f"{prefix}_name"]])
    return KittiTable(("000000",), np.array([0, num]), kind, values)


def _vectors(samples: Path) -> list[tuple[str, dict[str, Any]]]:
    paths = _cases(samples / "oracles" / "kitti_eval", "*.json")
    return [(f"{path.stem}:{name}", case) for path in paths for name, case in json.loads(path.read_text()).items()]


def test_oracle_second_implementation(samples: Path) -> None:
    """Expected arrays are [class][difficulty][overlap set]; overlaps [overlap set][metric][class]."""
    compared = 0
    for where, case in _vectors(samples):
        evaluation = KittiEvaluation(_table(case, "gt"), _table(case, "dt"))
        for key, expected in case.items():
            if not key.startswith("expected_mAP"):
                continue
            points, metric = key.removeprefix("expected_mAP").split("_")
            for number, name in enumerate(MMDET_CLASSES):
                for level in range(len(DIFFICULTIES)):
                    for overlaps, value in zip(case["min_overlaps"], expected[number][level], strict=True):
                        kind = "bbox" if metric == "aos" else metric
                        minimum = overlaps[("bbox", "bev", "3d").index(kind)][number]
                        curve = evaluation.curve(name, kind, level, minimum)
                        sampled = curve.similarity if metric == "aos" else curve.precision
                        assert sampled is not None
                        got = 100 * (sampled[::4] if points == "11" else sampled[1:]).mean()
                        assert got == pytest.approx(value, abs=1e-6), f"{where} {key} {name} {level}"
                        compared += 1
    assert compared, "no expected figures found"


def test_oracle_second_implementation_asserts(samples: Path) -> None:
    """The comparisons that are given as the source's own lines: sums over curves, means over classes."""
    compared = 0
    for where, case in _vectors(samples):
        lines = [line for line in case["_asserts"] if "np.isclose(" in line]
        if not lines:
            continue
        evaluation = KittiEvaluation(_table(case, "gt"), _table(case, "dt"))
        sums = _sums(evaluation, case) if "min_overlaps" in case else {}
        figures = evaluation.average_precision()
        for line in lines:
            subject, value = line.removeprefix("assert np.isclose(").removesuffix(")").rsplit(",", 1)
            if subject in sums:
                got = sums[subject]
            else:
                key = subject.split("'")[1].removeprefix("KITTI/")
                _, metric, points, level = key.split("_")
                metric, points = {"2D": "bbox", "BEV": "bev", "3D": "3d"}[metric], points.replace("AP", "AP_R")
                rows = [figures[name][metric] for name in MMDET_CLASSES]
                got = np.mean([row[points][DIFFICULTIES.index(level)] for row in rows if row is not None])
            assert got == pytest.approx(float(value), rel=1e-6), f"{where} {line}"
            compared += 1
    assert compared, "no comparisons found"


def _sums(evaluation: KittiEvaluation, case: dict[str, Any]) -> dict[str, float]:
    """Sums of all curves; there recall, too, is the best at this threshold or a lower one."""
    metric = ("bbox", "bev", "3d")[case["metric"]]
    curves = [
        evaluation.curve(name, metric, level, overlaps[case["metric"]][number])
        for number, name in enumerate(MMDET_CLASSES)
        for level in case["difficultys"]
        for overlaps in case["min_overlaps"]
    ]
    recalls = [np.maximum.accumulate(curve.recall[::-1]).sum() for curve in curves]
    similarities = [curve.similarity.sum() for curve in curves if curve.similarity is not None]
    precisions = [curve.precision.sum() for curve in curves]
    return {
        "recall_sum": float(sum(recalls)),
        "precision_sum": float(sum(precisions)),
        "orientation_sum": float(sum(similarities)),
    }
