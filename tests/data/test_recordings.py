"""Pairs from any source of frames: here many sweeps in one file, told apart by their position."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.data.ego_motion import EgoMotion
from equilidar.data.protocols import PairDataset
from equilidar.data.recordings import Frame, RecordedPairs, Run
from equilidar.structures import SensorContract

NUM_POINTS = 20
CONTRACT = SensorContract(("intensity",), (1.0,), "ego")


@dataclass(frozen=True)
class Archive:
    """Sweeps of `NUM_POINTS` float32 points, one after the other."""

    settings: str = "archive"
    contract: SensorContract = CONTRACT

    def read(self, frame: Frame) -> tuple[torch.Tensor, torch.Tensor]:
        values = np.fromfile(frame.path, "<f4", NUM_POINTS * 4, offset=frame.position).reshape(-1, 4)
        return torch.from_numpy(values[:, :3].copy()), torch.from_numpy(values[:, 3:].copy())


@pytest.fixture
def frames(tmp_path: Path) -> list[Frame]:
    points = np.random.default_rng(0).normal(size=(3, NUM_POINTS, 4)).astype("<f4")
    points.tofile(tmp_path / "log.dat")
    size = NUM_POINTS * 16
    return [Frame(f"archive/log/{i}", tmp_path / "log.dat", i, 0.1 * i, position=size * i) for i in range(3)]


def poses(num: int) -> np.ndarray:
    result = np.tile(np.eye(4), (num, 1, 1))
    result[:, 0, 3] = np.arange(num)
    return result


def test_frames_of_one_file_are_told_apart_by_position(frames: list[Frame]):
    data = RecordedPairs("archive", [Run(frames, poses(3))], Archive(), 1)
    assert isinstance(data, PairDataset) and data.contract.frame == "ego"
    assert data.keys == ["archive/log/0->archive/log/1", "archive/log/1->archive/log/2"]
    points = np.fromfile(frames[0].path, "<f4").reshape(3, NUM_POINTS, 4)
    sent = pickle.loads(pickle.dumps(data))
    for index in range(len(data)):
        pair = sent[index]
        np.testing.assert_array_equal(pair.source.xyz.numpy(), points[index, :, :3])
        np.testing.assert_array_equal(pair.target.features.numpy(), points[index + 1, :, 3:])
        assert pair.target_T_source[0, 3] == -1.0


def test_what_is_read_and_the_poses_are_part_of_the_hash(frames: list[Frame]):
    def identity(reader: Archive, positions: np.ndarray) -> str:
        return RecordedPairs("archive", [Run(frames, positions)], reader, 1).provenance()["hash"]

    assert identity(Archive(), poses(3)) == identity(Archive(), -0.0 * poses(3) + poses(3))
    others = {identity(Archive(), poses(3)), identity(Archive("other"), poses(3)), identity(Archive(), 2 * poses(3))}
    assert len(others) == 3


def test_without_poses_an_estimator_is_asked_with_frames_and_reader(frames: list[Frame]):
    asked = []

    def estimate(frames: list[Frame], reader: Archive) -> np.ndarray:
        asked.extend([len(frames), reader])
        return poses(len(frames))

    data = RecordedPairs("archive", [Run(frames)], Archive(), 1, estimate)
    assert asked == [3, Archive()] and len(data) == 2
    with pytest.raises(ValueError, match="archive: no poses for the run that begins with archive/log/0"):
        RecordedPairs("archive", [Run(frames)], Archive(), 1)


def test_estimated_poses_are_kept_by_position_and_settings(frames: list[Frame], tmp_path: Path):
    pytest.importorskip("kiss_icp", reason="extra 'ego' is not installed")
    estimate = EgoMotion(tmp_path / "cache", min_range=0.0)
    for chosen, reader in ((frames, Archive()), (frames, Archive()), (frames[1:], Archive()), (frames, Archive("b"))):
        assert estimate(chosen, reader).shape == (len(chosen), 4, 4)
    assert len(list((tmp_path / "cache").iterdir())) == 3
