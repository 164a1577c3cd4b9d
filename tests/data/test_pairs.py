"""Pairs of sweeps from KITTI odometry, KITTI raw and plain folders."""

from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.data.faults import FaultySweepError
from equilidar.data.folder import FolderPairs
from equilidar.data.kitti_odometry import KittiOdometry
from equilidar.data.kitti_raw import KittiRaw
from equilidar.data.listing import last_number, natural_key
from equilidar.data.protocols import PairDataset
from equilidar.structures import SweepPair
from tests.data.fake_data import cloud, write_bin
from tests.data.fake_kitti import camera_poses, row, static_world, write_odometry, write_pose_rows


def assert_motion_carries_points(pair: SweepPair) -> None:
    """A fixed world's points, in the same order in both sweeps: the pose must carry the one onto the other."""
    matrix = pair.target_T_source
    moved = pair.source.xyz.double() @ matrix[:3, :3].T + matrix[:3, 3]
    assert float((moved - pair.target.xyz).abs().max()) < 1e-4
    assert float((pair.source.xyz - pair.target.xyz).abs().max()) > 0.3, "a world that does not move tests nothing"


def write_raw(root: Path, drive: str, numbers: list[int], oxts: bool = True) -> None:
    """Write a drive in the official layout: a straight road at 49 degrees north, driven with a turned IMU."""
    day, folder = root / drive[:10], root / drive[:10] / drive
    velo_T_imu = np.eye(4)
    velo_T_imu[:3, :3] = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    velo_T_imu[:3, 3] = [-0.8, 0.3, -0.8]
    for number in range(max(numbers) + 1):
        metres = 1.3 * number
        latitude = 49.0 + np.degrees(metres / 6378137.0)
        if oxts:
            path = folder / "oxts" / "data" / f"{number:010d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{latitude:.12f} 8.4 110.0 0.0 0.0 {0.01 * number:.6f} " + "0 " * 24)
        world_T_imu = np.eye(4)
        yaw = 0.01 * number
        world_T_imu[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
        world_T_imu[1, 3] = metres
        if number in numbers:
            (sweep,) = static_world([world_T_imu @ np.linalg.inv(velo_T_imu)])
            write_bin(folder / "velodyne_points" / "data" / f"{number:010d}.bin", sweep)
    (folder / "velodyne_points" / "timestamps.txt").write_text(
        "".join(f"2011-09-26 13:02:{25 + 0.103 * i:012.9f}\n" for i in range(max(numbers) + 1))
    )
    (day / "calib_imu_to_velo.txt").write_text(
        "calib_time: 25-May-2012 16:47:16\n" + row("R", velo_T_imu[:3, :3]) + row("T", velo_T_imu[:3, 3])
    )


def test_odometry_poses_carry_the_source_onto_the_target(tmp_path: Path):
    write_odometry(tmp_path)
    data = KittiOdometry(tmp_path, allow_validation_drives=True)
    assert isinstance(data, PairDataset)
    for index in range(len(data)):
        assert_motion_carries_points(data[index])


@pytest.mark.parametrize(
    ("gap", "pairs"),
    [(1, [("000000", "000001"), ("000001", "000002"), ("000005", "000006")]), (2, [("000000", "000002")])],
)
def test_only_sweeps_of_one_run_are_paired(tmp_path: Path, gap: int, pairs: list[tuple[str, str]]):
    write_odometry(tmp_path)
    data = KittiOdometry(tmp_path, gap=gap, allow_validation_drives=True)
    name = "kitti_odometry/03/"
    assert data.keys == [f"{name}{a}->{name}{b}" for a, b in pairs] == [data[i].key for i in range(len(data))]
    assert data[0].target.timestamp - data[0].source.timestamp == pytest.approx(0.1 * gap)
    assert_motion_carries_points(data[len(data) - 1])
    assert [data.sweep(i).key[-6:] for i in range(data.num_sweeps)] == [
        "000000",
        "000001",
        "000002",
        "000005",
        "000006",
    ]


def test_odometry_official_layout(tmp_path: Path):
    camera = write_odometry(tmp_path, "03")
    inside = KittiOdometry(tmp_path, ["03"], allow_validation_drives=True)[0].target_T_source
    (tmp_path / "sequences" / "03" / "poses.txt").unlink()
    (tmp_path / "sequences" / "03" / "calib.txt").rename(tmp_path / "sequences" / "03" / "calib_Tr.txt")
    write_pose_rows(tmp_path / "poses" / "03.txt", camera)
    beside = KittiOdometry(tmp_path, ["03"], allow_validation_drives=True)[0].target_T_source
    assert torch.equal(inside, beside)


def test_odometry_errors(tmp_path: Path):
    camera = write_odometry(tmp_path)
    folder = tmp_path / "sequences" / "03"
    with pytest.raises(FileNotFoundError, match=r"77.*does not exist"):
        KittiOdometry(tmp_path, ["77"], allow_validation_drives=True)
    with pytest.raises(FileNotFoundError, match="sequences does not exist"):
        KittiOdometry(folder, allow_validation_drives=True)
    with pytest.raises(ValueError, match="no two sweeps are 3 frames apart"):
        KittiOdometry(tmp_path, gap=3, allow_validation_drives=True)
    with pytest.raises(ValueError, match=r"dataset\.gap"):
        KittiOdometry(tmp_path, gap=0, allow_validation_drives=True)
    write_pose_rows(folder / "poses.txt", camera[:4])
    with pytest.raises(ValueError, match="4 poses, but there is a sweep 6"):
        KittiOdometry(tmp_path, allow_validation_drives=True)
    (folder / "calib.txt").unlink()
    write_pose_rows(folder / "poses.txt", camera)
    with pytest.raises(FileNotFoundError, match="calibration"):
        KittiOdometry(tmp_path, allow_validation_drives=True)


def test_raw_drive_as_released(tmp_path: Path):
    write_raw(tmp_path, "2011_09_26_drive_0001_sync", [0, 1, 2, 4, 5])
    data = KittiRaw(tmp_path, allow_validation_drives=True)
    assert [key.split("/")[-1] for key in data.keys] == ["0000000001", "0000000002", "0000000005"]
    for index in range(len(data)):
        assert_motion_carries_points(data[index])
        assert data[index].target.timestamp - data[index].source.timestamp == pytest.approx(0.103, abs=1e-5)
    assert data.provenance()["num_runs_with_given_poses"] == 2


def test_raw_drives_by_name(tmp_path: Path):
    for drive in ("2011_09_26_drive_0001_sync", "2011_09_28_drive_0002_sync"):
        write_raw(tmp_path, drive, [0, 1])
    assert len(KittiRaw(tmp_path, allow_validation_drives=True)) == 2
    only = KittiRaw(tmp_path, ["2011_09_28_drive_0002"], allow_validation_drives=True)
    assert [key.split("/")[1] for key in only.keys] == ["2011_09_28_drive_0002_sync"]
    with pytest.raises(FileNotFoundError, match="no drive 2011_09_28_drive_0009"):
        KittiRaw(tmp_path, ["2011_09_28_drive_0009"], allow_validation_drives=True)
    with pytest.raises(FileNotFoundError, match="no drive"):
        KittiRaw(tmp_path / "2011_09_26" / "2011_09_26_drive_0001_sync", allow_validation_drives=True)
    (tmp_path / "2011_09_28" / "2011_09_28_drive_0003_sync").mkdir()
    with pytest.raises(FileNotFoundError, match="no sweeps in"):
        KittiRaw(tmp_path, allow_validation_drives=True)


def test_names_sort_by_value():
    assert sorted(["s10.bin", "s9.bin", "s1b.bin", "s1a.bin"], key=natural_key) == [
        "s1a.bin",
        "s1b.bin",
        "s9.bin",
        "s10.bin",
    ]
    assert [last_number(name) for name in ("frame_0012", "a1b22c", "none")] == [12, 22, None]


def write_folder(folder: Path, names: list[str], poses: np.ndarray) -> None:
    for name, sweep in zip(names, static_world(poses), strict=True):
        write_bin(folder / f"{name}.bin", sweep)


def test_folder_orders_by_number_and_uses_kitti_poses(tmp_path: Path):
    poses = camera_poses(12)
    write_folder(tmp_path, [f"sweep_{i}" for i in range(12)], poses)
    write_pose_rows(tmp_path / "poses.txt", poses)
    data = FolderPairs(tmp_path)
    assert [key.split("_")[-1] for key in data.keys] == [str(i) for i in range(1, 12)]
    assert_motion_carries_points(data[9])
    assert data[0].target.timestamp - data[0].source.timestamp == pytest.approx(0.1)


def test_folder_cuts_where_a_sweep_is_missing(tmp_path: Path):
    poses = camera_poses(6)
    stamps = [1_600_000_000_000_000_000 + int(1e8) * i for i in (0, 1, 2, 4, 5, 6)]
    write_folder(tmp_path, [str(stamp) for stamp in stamps], poses)
    write_pose_rows(tmp_path / "poses.txt", poses)
    data = FolderPairs(tmp_path)
    assert len(data) == 4 and len(data.runs) == 2
    assert data[0].source.timestamp == pytest.approx(1.6e9)
    assert data[0].target.timestamp - data[0].source.timestamp == pytest.approx(0.1, abs=1e-6)


def test_folder_matches_tum_poses_by_time(tmp_path: Path):
    """Ten times as many poses as sweeps, in no order."""
    poses, times = camera_poses(50, seed=3), 1_600_000_000 + 0.01 * np.arange(50)
    from tests.data.test_poses import write_tum

    order = np.random.default_rng(0).permutation(50)
    write_tum(tmp_path / "poses.tum", times[order], poses[order])
    used = [0, 10, 20, 30]
    write_folder(tmp_path, [str(1_600_000_000_000 + 10 * i) for i in used], poses[used])
    data = FolderPairs(tmp_path)
    for index in range(3):
        assert_motion_carries_points(data[index])
        assert data[index].target.timestamp - data[index].source.timestamp == pytest.approx(0.1, abs=1e-5)


def test_folder_of_sequences_and_mixed_files(tmp_path: Path):
    for name in ("a", "b/c"):
        poses = camera_poses(3)
        sweeps = static_world(poses)
        (tmp_path / name).mkdir(parents=True)
        for i, sweep in enumerate(sweeps):
            np.save(tmp_path / name / f"{i}.npy", sweep)
        write_pose_rows(tmp_path / name / "odometry.txt", poses)
        (tmp_path / name / "notes.md").write_text("ignored")
    write_bin(tmp_path / ".cache" / "0.bin", cloud(0))
    data = FolderPairs(tmp_path, poses="odometry.txt")
    assert [key.split("->")[0] for key in data.keys] == [f"folder/{s}/{i}" for s in ("a", "b/c") for i in (0, 1)]
    assert_motion_carries_points(data[3])


def test_folder_channels_are_the_contract(tmp_path: Path):
    table = np.concatenate([cloud(0), np.full((50, 1), 31, np.float32)], 1)
    for i in range(2):
        write_bin(tmp_path / f"{i}.bin", table)
    write_pose_rows(tmp_path / "poses.txt", camera_poses(2))
    data = FolderPairs(
        tmp_path, columns=["x", "y", "z", "intensity", "ring"], channels=["ring"], scales=[31.0], frame="ego"
    )
    assert data.contract.channels == ("ring",) and data.contract.frame == "ego"
    assert data[0].source.features.unique().tolist() == [1.0]
    assert data[0].source.points().channels == ("ring",)


def test_folder_errors(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        FolderPairs(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no \.bin"):
        FolderPairs(tmp_path)
    write_folder(tmp_path, ["0", "1", "2"], camera_poses(3))
    with pytest.raises(FileNotFoundError, match=r"dataset\.poses"):
        FolderPairs(tmp_path, poses="gps.txt")
    with pytest.raises(ValueError, match="period"):
        FolderPairs(tmp_path, period=0.0)
    write_pose_rows(tmp_path / "poses.txt", camera_poses(2))
    with pytest.raises(ValueError, match="2 poses for 3 sweeps"):
        FolderPairs(tmp_path)


def test_corrupt_sweep_is_a_fault_of_its_pairs_alone(tmp_path: Path):
    poses = camera_poses(5)
    write_folder(tmp_path, [str(i) for i in range(5)], poses)
    write_pose_rows(tmp_path / "poses.txt", poses)
    (tmp_path / "2.bin").write_bytes(b"")
    data = FolderPairs(tmp_path)
    for index in (1, 2):
        with pytest.raises(FaultySweepError, match=r"2\.bin: empty"):
            data[index]
    assert_motion_carries_points(data[0])
    assert_motion_carries_points(data[3])


def test_provenance_tells_data_apart(tmp_path: Path):
    write_odometry(tmp_path)
    first = KittiOdometry(tmp_path, allow_validation_drives=True).provenance()
    assert KittiOdometry(tmp_path, allow_validation_drives=True).provenance() == first
    assert (first["num_samples"], first["num_sweeps"], first["num_runs"]) == (3, 5, 2)
    assert first["allow_validation_drives"] is True
    other_gap = KittiOdometry(tmp_path, gap=2, allow_validation_drives=True).provenance()
    write_pose_rows(tmp_path / "sequences" / "03" / "poses.txt", camera_poses(7, seed=1))
    other_poses = KittiOdometry(tmp_path, allow_validation_drives=True).provenance()
    (tmp_path / "sequences" / "03" / "velodyne" / "000006.bin").unlink()
    fewer = KittiOdometry(tmp_path, allow_validation_drives=True).provenance()
    assert len({p["hash"] for p in (first, other_gap, other_poses, fewer)}) == 4
