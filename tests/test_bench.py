"""The kernels' benchmark: no row and no bar can go missing."""

import json

import pytest

from benchmarks.bench import all_rows, main
from benchmarks.detectors.end_to_end import CONFIGS
from benchmarks.harness import Row, run

RATIOS = {
    "backbone_b1": 2.0,
    "backbone_b4": 2.0,
    "backbone_memory": 1.0,
    "rulebook": 1 / 0.15,
    "pairing": 2.0,
    "pairing_open3d": 2.0,
    "voxelize": 3.0,
    "points_in_boxes": 20.0,
    "rotated_iou": 20.0,
    "nms": 20.0,
    "sampling": 2.0,
    "pipeline": 2.0,
    "second_e2e": 2.0,
    "second_e2e_training": 2.0,
}
SHARES = {"backbone_rate_b1": 0.5, "backbone_rate_b4": 0.5}
CENTERPOINT = {"centerpoint_e2e": 2.0, "centerpoint_e2e_training": 2.0}
WITHOUT_BAR = {"voxelize_hard", "voxelize_sweep", "distance_transform", "interpolate", "grouping", "roi_pooling"}
WITHOUT_BAR |= {
    f"second_e2e_{stage}" for stage in ("voxelization", "sparse", "dense", "decoding", "suppression", "whole", "memory")
}
WITHOUT_BAR |= {f"second_e2e_training_{stage}" for stage in ("sparse", "dense", "targets_loss", "whole")}
KEYS = {"name", "ours_ms", "peer", "peer_ms", "ratio", "bar", "share_of_limit"}


def test_every_row_is_there_with_its_bar():
    rows = list(all_rows(quick=True))
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {row.name: row.bar for row in rows if row.name in RATIOS} == pytest.approx(RATIOS)
    assert {row.name: row.share_bar for row in rows if row.name in SHARES} == SHARES
    assert set(names) >= WITHOUT_BAR
    if (CONFIGS / "detector" / "centerpoint_nuscenes.yaml").is_file():
        assert {row.name: row.bar for row in rows if row.name in CENTERPOINT} == CENTERPOINT


def test_table_and_file_hold_what_was_measured(tmp_path, capsys):
    main(["--quick", "--only", "nms", "--threads", "1", "--output", str(tmp_path / "bench.json")])
    (row,) = json.loads((tmp_path / "bench.json").read_text())
    assert row.keys() >= KEYS and row["name"] == "nms" and row["ratio"] == row["peer_ms"] / row["ours_ms"]
    assert "nms" in capsys.readouterr().out


def test_bars_are_judged_by_ratio_and_by_share():
    fast = Row("fast", None, "peer", measure=lambda: (1.0, 3.0), bar=2.0, limit=lambda: 0.6, share_bar=0.5)
    assert run(fast)["met"] is True
    assert run(Row("slow", None, "peer", measure=lambda: (1.0, 1.5), bar=2.0))["met"] is False
    assert run(Row("wasteful", None, "", measure=lambda: (1.0, None), limit=lambda: 0.4, share_bar=0.5))["met"] is False
    assert run(Row("peer absent", None, "", measure=lambda: (1.0, None), bar=2.0))["met"] is False
    assert run(Row("no bar", None, "", measure=lambda: (1.0, 2.0)))["met"] is None
