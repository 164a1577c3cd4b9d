"""Ego motion of sweeps without poses."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.data.ego_motion import EgoMotion
from equilidar.data.faults import FaultySweepError
from equilidar.data.folder import FolderPairs
from equilidar.data.recordings import Frame, PointFileReader
from tests.data.fake_data import write_bin

pytest.importorskip("kiss_icp", reason="extra 'ego' is not installed")

STEP = np.array([0.4, 0.05, 0.0])


def street(position: np.ndarray, seed: int) -> np.ndarray:
    """Ground, two walls and poles, seen from `position` with a centimetre of noise, sampled anew each time."""
    rng = np.random.default_rng(seed)
    num = 4000
    ground = np.stack([rng.uniform(-30, 30, num), rng.uniform(-8, 8, num), np.full(num, -1.7)], 1)
    walls = np.stack(
        [rng.uniform(-30, 30, num), rng.choice([-8.0, 8.0], num), rng.uniform(-1.7, 3, num)],
        1,
    )
    poles = np.stack(
        [rng.choice(np.arange(-28, 29, 4.0), num), rng.choice([-5.0, 6.0], num), rng.uniform(-1.7, 3, num)], 1
    )
    poles[:, :2] += rng.normal(0, 0.05, (num, 2))
    xyz = np.concatenate([ground, walls, poles]) - position + rng.normal(0, 0.01, (3 * num, 3))
    return np.concatenate([xyz, np.ones((len(xyz), 1))], 1).astype(np.float32)


@pytest.fixture
def drive(tmp_path: Path) -> list[Frame]:
    paths = [write_bin(tmp_path / "drive" / f"{i}.bin", street(i * STEP, i)) for i in range(5)]
    return [Frame(f"drive/{i}", path, i, 0.1 * i) for i, path in enumerate(paths)]


def test_a_known_motion_is_found(drive: list[Frame], tmp_path: Path):
    poses = EgoMotion(tmp_path / "cache")(drive, PointFileReader())
    np.testing.assert_array_equal(poses[0], np.eye(4))
    np.testing.assert_allclose(poses[:, :3, 3], np.arange(5)[:, None] * STEP, atol=0.05)
    np.testing.assert_allclose(poses[:, :3, :3], np.tile(np.eye(3), (5, 1, 1)), atol=5e-3)


def test_second_call_reads_the_cache(drive: list[Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    estimate = EgoMotion(tmp_path / "cache")
    poses = estimate(drive, PointFileReader())
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]
    monkeypatch.setattr(EgoMotion, "_estimate", lambda *_: pytest.fail("estimated again"))
    np.testing.assert_array_equal(estimate(drive, PointFileReader()), poses)


def test_other_files_or_settings_are_estimated_anew(drive: list[Frame], tmp_path: Path):
    EgoMotion(tmp_path / "cache")(drive, PointFileReader())
    EgoMotion(tmp_path / "cache", voxel_size=0.8)(drive, PointFileReader())
    EgoMotion(tmp_path / "cache")(drive[:4], PointFileReader())
    write_bin(drive[2].path, street(2 * STEP, 9)[:-5])
    EgoMotion(tmp_path / "cache")(drive, PointFileReader())
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_result_repeats_exactly(drive: list[Frame], tmp_path: Path):
    first = EgoMotion(tmp_path / "one")(drive, PointFileReader())
    np.testing.assert_array_equal(EgoMotion(tmp_path / "two")(drive, PointFileReader()), first)


def test_unreadable_sweep_gets_a_predicted_pose(drive: list[Frame], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    drive[3].path.write_bytes(b"broken")
    poses = EgoMotion(tmp_path / "cache")(drive, PointFileReader())
    np.testing.assert_allclose(poses[:, :3, 3], np.arange(5)[:, None] * STEP, atol=0.1)
    assert "3.bin" in caplog.text
    data = FolderPairs(tmp_path / "drive", cache_dir=tmp_path / "cache")
    with pytest.raises(FaultySweepError, match=r"3\.bin"):
        data[2]


def test_folder_without_poses_uses_it(drive: list[Frame], tmp_path: Path):
    data = FolderPairs(tmp_path / "drive", cache_dir=tmp_path / "cache")
    expected = torch.from_numpy(-STEP)
    torch.testing.assert_close(data[2].target_T_source[:3, 3], expected, atol=0.05, rtol=0)
    assert data.provenance()["num_runs_with_given_poses"] == 0


def test_without_the_extra_the_message_names_it(drive: list[Frame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "kiss_icp", None)
    with pytest.raises(ImportError, match=r"equilidar\[ego\]"):
        FolderPairs(tmp_path / "drive", cache_dir=tmp_path / "cache")
