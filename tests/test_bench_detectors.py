"""The detectors' benchmark compares like with like: the peer's way gives the same losses, boxes and maps."""

from pathlib import Path

import pytest
import torch

from benchmarks.detectors.end_to_end import DENSE, NMS, SPARSE, TARGETS, EndToEnd, Setting
from benchmarks.frames import simulated
from benchmarks.spconv_backbone import import_spconv

SECOND = Setting(
    "second_tiny", "sim_tiny", "voxel_plain", "second_small", ("Car", "Pedestrian", "Cyclist"),
    lambda: simulated(azimuth_steps=360), 1, 9, residual=False,
)  # fmt: skip
CENTERPOINT = Setting(
    "center_tiny", "sim_tiny", "voxel_residual", "centerpoint_small", ("Car", "Pedestrian", "Cyclist"),
    lambda: simulated(azimuth_steps=360), 2, 9, residual=True,
)  # fmt: skip


@pytest.fixture(params=[SECOND, CENTERPOINT], ids=lambda setting: setting.name)
def run(request) -> EndToEnd:
    if not request.param.available:
        pytest.skip(f"no configs for {request.param.name}")
    return EndToEnd(request.param, quick=True)


def test_the_peer_assigns_compares_and_suppresses_alike(run) -> None:
    outputs, known = run._outputs, run._known
    ours = run._model.loss(outputs, run._boxes)
    torch.testing.assert_close(run._peer.loss(outputs, known), ours.total(), rtol=1e-4, atol=1e-5)
    candidates = run._peer.candidates(outputs)
    assert sum(len(scores) for _, scores in candidates) > 20, "too few boxes for a suppression to be measured"
    assert run._peer.suppress(candidates) == len(run._model.decode(outputs).scores)


@pytest.mark.skipif(import_spconv() is None, reason="spconv is not installed")
def test_all_stages_are_measured_and_add_up(run) -> None:
    for what, stages in (("inference", (SPARSE, DENSE, NMS)), ("training", (SPARSE, DENSE, TARGETS))):
        for side in (0, 1):
            parts = [run.stage(what, stage)[side] for stage in stages]
            whole, outside = run.whole(what)[side], run.outside_dense(what)[side]
            assert all(part > 0 for part in parts) and sum(parts) <= whole + 1e-6
            assert whole - outside == pytest.approx(run.stage(what, DENSE)[side])
    assert all(figure is not None and figure > 0 for figure in run.memory())
    assert Path(run.note.split(",")[0]).name and "boxes" in run.note


@pytest.mark.skipif(import_spconv() is None, reason="spconv is not installed")
def test_the_peers_backbone_has_the_same_voxels_and_map(run) -> None:
    theirs = run._theirs
    features, coords = theirs.voxelize()
    voxels = run._model.backbone.encode(run._points)
    assert len(features) == len(voxels.stages["conv1"].coords) == len(coords)
    with torch.no_grad():
        made = theirs.encode(features, coords)
    bev = voxels.bev_map().features
    assert made.shape == bev.shape
    occupied = [(one.abs().sum(1) > 0).float().mean() for one in (made, bev)]
    assert abs(float(occupied[0] - occupied[1])) < 0.02
