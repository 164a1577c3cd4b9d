"""The raster against SciPy's distance transform, and boxes around its border."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from scipy.ndimage import distance_transform_edt

from equilidar.evaluation.argoverse2_evaluator import Argoverse2Evaluator
from equilidar.evaluation.argoverse2_map import RegionOfInterest
from tests.evaluation.fake_sets import make_detections, make_truth, write_argoverse2

L_SHAPE = [(0, 0), (30, 0), (30, 10), (12.3, 10), (12.3, 25.5), (0, 25.5), (0, 0)]
ORIGIN = np.array([100.0, 200.0])


def _write_map(folder: Path, polygon: list[tuple[float, float]]) -> None:
    folder.mkdir(parents=True)
    boundary = [{"x": 100 + x, "y": 200 + y, "z": 5.0} for x, y in polygon]
    (folder / "log_map_archive_x.json").write_text(json.dumps({"drivable_areas": {"1": {"area_boundary": boundary}}}))


def test_cells_within_5_m_of_the_drivable_area(tmp_path: Path) -> None:
    _write_map(tmp_path / "map", L_SHAPE)
    region = RegionOfInterest.read(tmp_path / "map")
    assert region.origin.tolist() == ORIGIN.tolist() and region.gap.shape == (270, 310)
    expected = distance_transform_edt(region.gap > 0) <= 50
    x, y = np.meshgrid(np.arange(310), np.arange(270))
    points = ORIGIN + (np.stack([x.ravel(), y.ravel()], 1) + 0.5) / 10
    np.testing.assert_array_equal(region.contains(points).reshape(expected.shape), expected)


def test_beside_the_raster_is_outside_but_for_a_cell_toward_zero(tmp_path: Path) -> None:
    _write_map(tmp_path / "map", L_SHAPE)
    region = RegionOfInterest.read(tmp_path / "map")
    offsets = np.array([[-0.05, 1.0], [-0.15, 1.0], [1.0, -0.05], [31.5, 1.0], [1.0, 27.5], [28.0, 24.0], [16.0, 20.0]])
    assert region.contains(ORIGIN + offsets).tolist() == [True, False, True, False, False, False, True]


def test_boxes_move_with_the_pose_of_their_sweep(tmp_path: Path) -> None:
    truth = make_truth()
    paths = write_argoverse2(tmp_path, truth, make_detections(truth))
    for log in ("log-a", "log-b"):
        _write_map(tmp_path / log / "map", [(-5, -20), (40, -20), (40, 40), (-5, 40)])
        # log-b stands a kilometre off its map.
        poses = {"timestamp_ns": [1000, 1001], "qw": [1.0, 1.0], "qx": [0.0] * 2, "qy": [0.0] * 2, "qz": [0.0] * 2}
        place = {"tx_m": [100.0 + 1000 * (log == "log-b")] * 2, "ty_m": [200.0] * 2, "tz_m": [0.0] * 2}
        pyarrow.feather.write_feather(pa.table(poses | place), tmp_path / log / "city_SE3_egovehicle.feather")
    figures = Argoverse2Evaluator(*paths, dataset_dir=tmp_path).evaluate()
    assert figures["config"]["eval_only_roi_instances"]
    assert figures["roi"]["evaluated_annotation_rows"] == list(range(16))
    assert figures["no_roi"]["evaluated_detection_rows"] == list(range(24))
    assert figures["metrics"] == figures["roi"]["metrics"]
    assert "no_roi" not in Argoverse2Evaluator(*paths, dataset_dir=tmp_path, roi=False).evaluate()
    (tmp_path / "log-b" / "map" / "log_map_archive_x.json").unlink()
    assert "roi" not in Argoverse2Evaluator(*paths, dataset_dir=tmp_path).evaluate()
    with pytest.raises(FileNotFoundError, match=r"no log_map_archive_\*.json"):
        Argoverse2Evaluator(*paths, dataset_dir=tmp_path, roi=True).evaluate()


def test_a_sweep_without_a_pose_and_a_map_without_area(tmp_path: Path) -> None:
    truth = make_truth()
    paths = write_argoverse2(tmp_path, truth, make_detections(truth))
    for log in ("log-a", "log-b"):
        _write_map(tmp_path / log / "map", L_SHAPE)
        pose = {"timestamp_ns": [1], **{name: [1.0] for name in ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")}}
        pyarrow.feather.write_feather(pa.table(pose), tmp_path / log / "city_SE3_egovehicle.feather")
    with pytest.raises(ValueError, match="has no pose at 1000"):
        Argoverse2Evaluator(*paths, dataset_dir=tmp_path).evaluate()
    (tmp_path / "log-a" / "map" / "log_map_archive_x.json").write_text("{}")
    with pytest.raises(ValueError, match="has no drivable_areas"):
        Argoverse2Evaluator(*paths, dataset_dir=tmp_path).evaluate()
