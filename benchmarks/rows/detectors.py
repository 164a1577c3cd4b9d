"""Whole detectors, from raw points to boxes and through a training step, against spconv and OpenPCDet's way."""

from collections.abc import Iterator
from functools import partial

from benchmarks import frames
from benchmarks.detectors.end_to_end import DECODING, DENSE, NMS, SPARSE, TARGETS, VOXELIZATION, EndToEnd, Setting
from benchmarks.harness import Row

_KITTI = ("Car", "Pedestrian", "Cyclist")
_WAYMO = ("Vehicle", "Pedestrian", "Cyclist")
_NUSCENES = (
    "car",
    "truck",
    "bus",
    "trailer",
    "construction_vehicle",
    "pedestrian",
    "motorcycle",
    "bicycle",
    "traffic_cone",
    "barrier",
)


def _other(name: str) -> frames.Frame:
    return frames.others().get(name) or frames.simulated()


SETTINGS = (
    Setting("second", "kitti", "voxel_plain", "second", _KITTI, frames.kitti, 1, 12, residual=False),
    Setting(
        "centerpoint", "nuscenes_0075", "voxel_residual", "centerpoint_nuscenes", _NUSCENES,
        partial(_other, "nuscenes"), 2, 40, residual=True,
    ),
    Setting(
        "centerpoint_waymo", "waymo", "voxel_residual", "centerpoint_waymo", _WAYMO,
        partial(_other, "waymo"), 2, 60, residual=True,
    ),
)  # fmt: skip

_PEER = (
    "spconv 2.3.8 (PointToVoxel, Native, faster of 1 and 2 threads), targets, loss, decoding and NMS OpenPCDet's way"
)
_STAGES = {
    "inference": (VOXELIZATION, SPARSE, DENSE, DECODING, NMS),
    "training": (VOXELIZATION, SPARSE, DENSE, TARGETS),
}


def rows(quick: bool) -> Iterator[Row]:
    """Yield the rows of each detector whose configs are there."""
    for setting in SETTINGS:
        if setting.available:
            yield from _rows(setting.name, EndToEnd(setting, quick))


def _rows(name: str, run: EndToEnd) -> Iterator[Row]:
    for what, stages in _STAGES.items():
        row = f"{name}_e2e" if what == "inference" else f"{name}_e2e_{what}"
        outside = ", ".join(stage for stage in stages if stage != DENSE)
        step = "from points to boxes" if what == "inference" else "forward and backward, without the optimizer"
        yield Row(
            row,
            None,
            _PEER,
            measure=partial(run.outside_dense, what),
            bar=2.0,
            note=f"all but the dense 2D network: {outside}; {step}; {run.note}",
        )
        for stage in stages:
            peer = "the same network, on a map in NCHW order" if stage == DENSE else _PEER
            yield Row(f"{row}_{stage}", None, peer, measure=partial(run.stage, what, stage), note=step)
        yield Row(
            f"{row}_whole",
            None,
            _PEER,
            measure=partial(run.whole, what),
            limit=lambda what=what: run.stage(what, DENSE)[0],
            note=f"{step}; limit (Amdahl): the dense 2D network alone, as if all else took no time",
        )
    yield Row(
        f"{name}_e2e_memory", None, _PEER, measure=run.memory, unit="MB", note="peak of a training step above its start"
    )
