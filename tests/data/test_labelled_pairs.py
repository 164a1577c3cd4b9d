"""True flow of recordings: the samples, and logs written here in which everything is known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.data.argoverse2_flow import Argoverse2Flow
from equilidar.data.kitti_raw_labelled_pairs import KittiRawLabelledPairs
from equilidar.data.labelled_pairs import labelled_pairs
from equilidar.flow import RigidFlow
from equilidar.ops.neighbors import nearest
from equilidar.structures import LabelledPair, SweepPairBatch


def to_target(labelled: LabelledPair, flow: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return how far points are from the nearest one of the target sweep after a flow."""
    there = labelled.pair.source.xyz[rows] + flow[rows]
    target = labelled.pair.target.xyz
    return nearest(there, torch.tensor([0, len(there)]), target, torch.tensor([0, len(target)]), 5.0)[1].clamp(max=5.0)


def check_truth(labelled: LabelledPair) -> int:
    """Check what holds of any recording; return the number of moving points."""
    pair = labelled.pair
    assert pair.flow is not None and pair.flow_valid is not None
    num = len(pair.source.xyz)
    assert pair.flow.shape == labelled.rest.shape == (num, 3) and len(labelled.dynamic) == num
    rigid = RigidFlow()(SweepPairBatch.collate([pair])).flow
    assert (labelled.rest - rigid).abs().max() < 1e-3
    known = pair.flow_valid
    assert not labelled.dynamic[labelled.category == 0].any() or "argoverse2" in pair.source.key
    assert (labelled.instance[labelled.category == 0] == -1).all()
    still = known & ~labelled.dynamic
    assert (pair.flow - labelled.rest)[still].norm(dim=1).mean() < 0.02
    moving = known & labelled.dynamic & (labelled.category > 0)
    if moving.sum() > 100:
        exact, at_rest = (to_target(labelled, flow, moving) for flow in (pair.flow, labelled.rest))
        assert exact.median() < 0.12 and exact.mean() < 0.6 * at_rest.mean()
    return int(moving.sum())


def test_argoverse2_sample(samples):
    if not list((samples / "argoverse2").rglob("flow_labels.feather")):
        pytest.skip("no Argoverse 2 log with flow")
    pairs = labelled_pairs(Argoverse2Flow(samples / "argoverse2"))
    moving = 0
    for index in range(len(pairs)):
        labelled = pairs[index]
        moving += check_truth(labelled)
        boxed = labelled.category > 0
        assert (labelled.instance[boxed] >= 0).float().mean() > 0.97, "points with a class lie in annotated boxes"
        assert labelled.ground is not None and 0.05 < labelled.ground.float().mean() < 0.9
    assert moving > 100


def test_kitti_raw_sample(samples):
    if not (samples / "kitti_raw").is_dir():
        pytest.skip("no KITTI raw drives")
    pairs = KittiRawLabelledPairs(samples / "kitti_raw", max_seconds=0.25)
    assert labelled_pairs(pairs) is pairs
    moving = sum(check_truth(pairs[index]) for index in range(len(pairs)))
    assert moving > 100 and len(pairs) >= 3


def write_drive(root: Path, boxes: dict[int, list[tuple[str, tuple[float, float, float], float]]], frames: int = 3):
    """Write a drive whose sensor stands; boxes by frame: class, centre, yaw. All are 4 x 2 x 1.5 m, full of points."""
    drive = root / "2011_09_26_drive_0001_sync"
    for folder in ("velodyne_points/data", "label_2", "calib", "oxts/data"):
        (drive / folder).mkdir(parents=True)
    grid = np.stack(np.meshgrid(np.linspace(-1.9, 1.9, 12), np.linspace(-0.9, 0.9, 8), np.linspace(-0.7, 0.7, 6)), -1)
    wall = np.stack(np.meshgrid([30.0], np.linspace(-8, 8, 60), np.linspace(-1, 2, 12)), -1).reshape(-1, 3)
    for number in range(frames):
        parts = [wall]
        for _, center, yaw in boxes.get(number, boxes[0]):
            turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
            parts.append(grid.reshape(-1, 3) @ turn.T + center)
        xyz = np.concatenate(parts)
        np.column_stack([xyz, np.zeros(len(xyz))]).astype(np.float32).tofile(
            drive / "velodyne_points/data" / f"{number:010d}.bin"
        )
        (drive / "oxts/data" / f"{number:010d}.txt").write_text(" ".join(["49.0", "8.4", "110.0", *["0.0"] * 27]))
    for number, found in boxes.items():
        # Camera 0 as KITTI turns it: x right, y down, z ahead; the focal length of a day's camera.
        (drive / "calib" / f"{number:010d}.txt").write_text(
            "P2: 721.5377 0 609.5593 0 0 721.5377 172.854 0 0 0 1 0\nR0_rect: 1 0 0 0 1 0 0 0 1\n"
            "Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"
        )
        rows = [
            f"{kind} 0 0 0 400 100 500 200 1.5 2 4 {-y} {-(z - 0.75)} {x} {-yaw - np.pi / 2}"
            for kind, (x, y, z), yaw in found
        ]
        (drive / "label_2" / f"{number:010d}.txt").write_text("\n".join(rows) + "\n")
    (root / "2011_09_26_drive_0001_sync" / "calib_imu_to_velo.txt").write_text("R: 1 0 0 0 1 0 0 0 1\nT: 0 0 0\n")
    return root


def test_boxes_of_two_frames_give_the_flow_to_the_sweep_between_them(tmp_path):
    first = [("Car", (15.0, 4.0, 0.0), 0.0), ("Car", (12.0, -4.0, 0.0), 0.3), ("Van", (20.0, 0.0, 0.0), 0.0)]
    later = [("Car", (12.0, -4.0, 0.0), 0.32), ("Car", (16.6, 4.0, 0.0), 0.2)]
    pairs = KittiRawLabelledPairs(write_drive(tmp_path, {0: first, 2: later}), max_seconds=0.25)
    assert len(pairs) == 1 and pairs.keys[0].startswith("kitti_raw/2011_09_26_drive_0001_sync/0000000000->")
    labelled = pairs[0]
    pair, xyz = labelled.pair, labelled.pair.source.xyz
    assert pair.flow is not None and pair.flow_valid is not None
    car = (xyz - torch.tensor([15.0, 4.0, 0.0])).abs().amax(1) < 2.0
    parked = (xyz - torch.tensor([12.0, -4.0, 0.0])).abs().amax(1) < 2.2
    van = (xyz - torch.tensor([20.0, 0.0, 0.0])).abs().amax(1) < 2.0
    assert labelled.dynamic.equal(car)
    # Half of the way and half of the turn: 0.8 m ahead, 0.1 rad about its centre.
    turn = torch.tensor([[np.cos(0.1), -np.sin(0.1), 0], [np.sin(0.1), np.cos(0.1), 0], [0, 0, 1]]).float()
    center = torch.tensor([15.0, 4.0, 0.0])
    expected = (xyz[car] - center) @ turn.T + center + torch.tensor([0.8, 0.0, 0.0]) - xyz[car]
    torch.testing.assert_close(pair.flow[car], expected, atol=2e-3, rtol=0)
    assert pair.flow[parked].abs().max() < 1e-3, "slower than 1 m/s: how boxes were drawn, not motion"
    # Unknown: the van that has no partner, the lowest 0.2 m of a box; known: the wall in the image.
    assert not pair.flow_valid[van].any()
    low = xyz[:, 2] < -0.75 + 0.2
    assert not pair.flow_valid[car & low].any() and pair.flow_valid[car & ~low].all()
    wall = xyz[:, 0] == 30.0
    assert pair.flow_valid[wall].all() and (labelled.instance[wall] == -1).all()
    assert labelled.instance[car].unique().numel() == 1


def test_frames_too_far_apart_are_no_pair(tmp_path):
    root = write_drive(tmp_path, {0: [("Car", (15.0, 4.0, 0.0), 0.0)], 2: [("Car", (15.0, 4.0, 0.0), 0.0)]})
    with pytest.raises(ValueError, match=r"at most 0\.15 s later; raise dataset\.max_seconds"):
        KittiRawLabelledPairs(root, max_seconds=0.15)


class TestExactFlowOfTheSimulator:
    """Exact flow takes points of objects onto the next sweep, by the objects' own poses, rolling shutter or not."""

    SENSOR = {"name": "hdl64e", "azimuth_steps": 360, "beam_stride": 4}  # noqa: RUF012

    @pytest.fixture(scope="class", params=[False, True], ids=["still", "rolling"])
    def sweeps(self, request):
        from equilidar.data.simulator import SimulatedPairs

        pairs = SimulatedPairs(self.SENSOR, 2, 1, seed=9, gap=2, rolling_shutter=request.param)
        return [(pairs.simulate(index), pairs.simulate(index, 2), request.param) for index in range(len(pairs))]

    def test_solid_objects_keep_their_points(self, sweeps):
        checked = 0
        for source, target, rolling in sweeps:
            for row, track in enumerate(source.objects.track.tolist()):
                own = source.instance == track
                later = np.flatnonzero(target.objects.track == track)
                if own.sum() < 5 or len(later) == 0:
                    continue
                there = source.xyz[own].astype(np.float64) + source.flow[own]
                at, size = target.objects.center[later[0]], target.objects.size[later[0]]
                local = _local(there, at, target.objects.yaw[later[0]])
                assert (np.abs(local) <= size / 2 + 0.1).all(), "within range noise of its box in the later sweep"
                if not rolling and source.semantic[own][0] in _solid():
                    before = _local(source.xyz[own], source.objects.center[row], source.objects.yaw[row])
                    assert np.abs(before - local).max() < 5e-3
                checked += 1
        assert checked > 10


def _local(xyz, center, yaw) -> np.ndarray:
    delta = xyz.astype(np.float64) - center
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([cos * delta[:, 0] + sin * delta[:, 1], cos * delta[:, 1] - sin * delta[:, 0], delta[:, 2]], 1)


def _solid() -> list[int]:
    from equilidar.data.simulator.classes import semantic_id

    return [semantic_id(name) for name in ("Car", "Van", "Truck")]
