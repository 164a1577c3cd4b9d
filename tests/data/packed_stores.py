"""Packs what tests write, and compares what comes back."""

from pathlib import Path

import torch

from equilidar.data.packed import PackedPairs
from equilidar.data.packing import Packing
from equilidar.structures import Boxes3D, Sweep, SweepPair
from tests.data.fake_data import cloud, write_bin
from tests.data.fake_kitti import camera_poses, write_pose_rows


def pack(dataset, output: Path, **settings):
    settings = {"num_workers": 2, **settings}
    return Packing(dataset, output, "python tools/prepare.py ...", **settings).run()


def assert_same_sweep(one: Sweep, other: Sweep) -> None:
    assert torch.equal(one.xyz, other.xyz) and torch.equal(one.features, other.features)
    assert (one.key, one.timestamp, one.contract) == (other.key, other.timestamp, other.contract)
    assert (one.world_T_sensor is None) == (other.world_T_sensor is None)
    if one.world_T_sensor is not None:
        assert torch.equal(one.world_T_sensor, other.world_T_sensor)


def assert_same_pair(one: SweepPair, other: SweepPair) -> None:
    assert_same_sweep(one.source, other.source)
    assert_same_sweep(one.target, other.target)
    torch.testing.assert_close(one.target_T_source, other.target_T_source, rtol=0, atol=1e-9)


def assert_same_boxes(one: Boxes3D, other: Boxes3D) -> None:
    for name in ("center", "size", "yaw", "velocity", "label", "track", "offsets"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)


def assert_same_pairs(raw, packed: PackedPairs) -> None:
    assert packed.keys == raw.keys and packed.contract == raw.contract and packed.name == raw.name
    for index in range(len(raw)):
        assert_same_pair(packed[index], raw[index])


def write_log(root: Path, num: int = 4, sequences: tuple[str, ...] = ("a", "b"), empty: tuple[str, ...] = ()) -> Path:
    """Write sequences of `num` sweeps with poses; the files named in `empty` hold nothing."""
    for number, sequence in enumerate(sequences):
        for i in range(num):
            write_bin(root / sequence / f"{i}.bin", cloud(10 * number + i, 40 + i))
        write_pose_rows(root / sequence / "poses.txt", camera_poses(num, number))
    for name in empty:
        (root / name).write_bytes(b"")
    return root
