"""Own logs: the same simulated street through a ROS 1 bag, ROS 2 bags and MCAP, and back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mcap_ros2.reader import read_ros2_messages
from scipy.spatial.transform import Rotation

from equilidar.data.own_log import LogPairs
from equilidar.data.protocols import PairDataset
from tests.data.fake_logs import (
    BASE_T_SENSOR,
    KINDS,
    START,
    STEP,
    Contents,
    driven,
    rewritten_by_its_own_library,
    velodyne_like,
    write_log,
)
from tests.data.fake_sequence import RecordedSweep, recorded_sweeps

NUM = 4


def expected_motion(a: RecordedSweep, b: RecordedSweep) -> np.ndarray:
    return np.linalg.inv(b.world_T_sensor) @ a.world_T_sensor


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_street_comes_back(tmp_path: Path, kind: str):
    path = write_log(tmp_path / "drive", driven(NUM), kind)
    data = LogPairs(
        path, channels=["intensity", "ring", "time"], scales=[255.0, 63.0, 1.0], cache_dir=tmp_path / "cache"
    )
    assert isinstance(data, PairDataset)
    assert data.keys[0] == f"own_log/drive/{START}->own_log/drive/{START + STEP}" and len(data) == NUM - 1
    assert data.pose_sources == {"drive": "tf odom <- velodyne"} and data.num_without_pose == 0
    sweeps = recorded_sweeps(NUM)
    for index in range(NUM):
        sweep, recorded = data.sweep(index), sweeps[index]
        np.testing.assert_allclose(sweep.xyz, recorded.xyz, atol=1e-6)
        np.testing.assert_allclose(sweep.features[:, 0], recorded.intensity, atol=1e-6)
        np.testing.assert_allclose(sweep.features[:, 1], np.arange(len(recorded.xyz)) % 64 / 63, atol=1e-6)
        np.testing.assert_allclose(sweep.features[:, 2], np.linspace(-0.05, 0.05, len(recorded.xyz)), atol=1e-6)
        assert sweep.timestamp == pytest.approx((START + STEP * index) * 1e-9, abs=1e-6)
    for index in range(NUM - 1):
        np.testing.assert_allclose(
            data[index].target_T_source, expected_motion(sweeps[index], sweeps[index + 1]), atol=1e-6
        )


@pytest.mark.parametrize("kind", ["mcap", "plain"])
def test_mcap_files_mean_the_same_to_their_own_library(tmp_path: Path, kind: str):
    """Ours against the format's own reader and writer (packages mcap and mcap-ros2-support)."""
    path = write_log(tmp_path / "drive", driven(NUM)) / "drive.mcap"
    if kind == "plain":
        path = rewritten_by_its_own_library(path, tmp_path / "plain.mcap")
    data = LogPairs(path, cache_dir=tmp_path / "cache")
    clouds = [entry.ros_msg for entry in read_ros2_messages(str(path)) if entry.channel.topic == "/points"]
    assert len(clouds) == data.num_sweeps == NUM
    for index, cloud in enumerate(clouds):
        raw = np.frombuffer(cloud.data, np.uint8).reshape(-1, cloud.point_step)
        np.testing.assert_array_equal(data.sweep(index).xyz, np.ascontiguousarray(raw[:, :12]).view("<f4"))


@pytest.mark.parametrize("poses", ["auto", "/odom"])
def test_odometry_where_there_is_no_tf(tmp_path: Path, poses: str):
    path = write_log(tmp_path / "drive", driven(NUM, "odometry"), "bag")
    data = LogPairs(path, poses=poses, cache_dir=tmp_path / "cache")
    assert data.pose_sources == {"drive": "topic /odom"}
    np.testing.assert_allclose(data[0].target_T_source, expected_motion(*recorded_sweeps(NUM)[:2]), atol=1e-6)


def test_odometry_of_a_frame_that_tf_does_not_know(tmp_path: Path):
    contents = driven(NUM, "odometry")
    contents.static = []
    path = write_log(tmp_path / "drive", contents)
    with pytest.raises(ValueError, match=r"/odom moves base_link, and no fixed transform .* velodyne .*pose_T_points"):
        LogPairs(path, cache_dir=tmp_path / "cache")
    numbers = [*BASE_T_SENSOR[:3, 3], *Rotation.from_matrix(BASE_T_SENSOR[:3, :3]).as_quat()]
    data = LogPairs(path, pose_T_points=[float(v) for v in numbers], cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(data[0].target_T_source, expected_motion(*recorded_sweeps(NUM)[:2]), atol=1e-6)
    with pytest.raises(ValueError, match=r"dataset\.pose_T_points must be x, y, z"):
        LogPairs(path, pose_T_points=[1.0, 2.0], cache_dir=tmp_path / "cache")


def test_poses_between_the_stamps_are_interpolated(tmp_path: Path):
    """Poses at 20 Hz, never at a sweep's stamp, of a vehicle that turns and drives evenly."""

    def pose(seconds: float) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler("z", 0.4 * seconds).as_matrix()
        matrix[:3, 3] = 10 * seconds, -3 * seconds, 0
        return matrix

    contents = driven(3, "none")
    contents.static = []
    times = [round(1e9 * 0.05 * i) - 20_000_000 for i in range(7)]
    contents.tf = [(START + time, "map", "velodyne", pose(time * 1e-9)) for time in times]
    data = LogPairs(write_log(tmp_path / "drive", contents), cache_dir=tmp_path / "cache")
    assert data.pose_sources == {"drive": "tf map <- velodyne"}
    for i in range(3):
        np.testing.assert_allclose(data.sweep(i).world_T_sensor, pose(0.1 * i), atol=1e-9)


def test_a_fixed_transform_that_is_published_again_and_again(tmp_path: Path):
    """As ROS 1's old publisher of static transforms does, every 30 ms."""
    contents = driven(NUM)
    contents.static = []
    contents.tf += [(START + 30_000_000 * i, "base_link", "velodyne", BASE_T_SENSOR) for i in range(-3, 12)]
    data = LogPairs(
        write_log(tmp_path / "drive", contents, "bag"), base_frame="base_link", cache_dir=tmp_path / "cache"
    )
    assert len(data) == NUM - 1 and data.pose_sources == {"drive": "tf odom <- base_link"}


def test_stamps_that_stand_still_give_way_to_times_of_recording(tmp_path: Path):
    contents = driven(NUM)
    contents.clouds["/points"] = [(START, cloud) for _, cloud in contents.clouds["/points"]]
    contents.recorded = [START + STEP * i for i in range(NUM)]
    data = LogPairs(write_log(tmp_path / "drive", contents), cache_dir=tmp_path / "cache")
    assert [round(data.sweep(i).timestamp * 1e9 - START, -6) for i in range(NUM)] == [STEP * i for i in range(NUM)]
    for index, recorded in enumerate(recorded_sweeps(NUM)):
        np.testing.assert_allclose(data.sweep(index).xyz, recorded.xyz, atol=1e-6)


def test_logs_of_one_name_keep_their_suffixes(tmp_path: Path):
    (tmp_path / "logs.d").mkdir()
    write_log(tmp_path / "logs.d" / "a", driven(2), "bag")
    write_log(tmp_path / "logs.d" / "a", driven(2))
    data = LogPairs(tmp_path / "logs.d", cache_dir=tmp_path / "cache")
    assert list(data.pose_sources) == ["a", "a.bag"] and len(set(data.keys)) == 2


def test_sweeps_outside_the_poses_are_left_out(tmp_path: Path):
    contents = driven(NUM)
    contents.tf = contents.tf[1:]
    data = LogPairs(write_log(tmp_path / "late", contents), cache_dir=tmp_path / "cache")
    assert len(data) == NUM - 2 and data.num_without_pose == 1
    contents.tf = [(time - 3_600_000_000_000, *rest) for time, *rest in driven(NUM).tf]
    with pytest.raises(ValueError, match=r"cover none of the 4 sweeps .*dataset\.poses to estimate"):
        LogPairs(write_log(tmp_path / "never", contents), cache_dir=tmp_path / "cache")


def test_a_missing_sweep_cuts_the_log(tmp_path: Path):
    contents = driven(6)
    del contents.clouds["/points"][2]
    data = LogPairs(write_log(tmp_path / "drive", contents), cache_dir=tmp_path / "cache")
    assert len(data) == 3 and len(data.runs) == 2


def test_points_in_the_base_frame(tmp_path: Path):
    path = write_log(tmp_path / "drive", driven(NUM))
    data = LogPairs(path, base_frame="base_link", cache_dir=tmp_path / "cache")
    assert data.contract.frame == "ego"
    recorded = recorded_sweeps(NUM)[0]
    moved = recorded.xyz @ BASE_T_SENSOR[:3, :3].T + BASE_T_SENSOR[:3, 3]
    np.testing.assert_allclose(data.sweep(0).xyz, moved, atol=1e-5)
    world_T_base = recorded.world_T_sensor @ np.linalg.inv(BASE_T_SENSOR)
    np.testing.assert_allclose(data.sweep(0).world_T_sensor, world_T_base, atol=1e-6)
    with pytest.raises(ValueError, match=r"from the sensor's frame velodyne to mast; its frames are: base_link, odom"):
        LogPairs(path, base_frame="mast", cache_dir=tmp_path / "cache")


def test_no_poses_are_estimated_once(tmp_path: Path):
    pytest.importorskip("kiss_icp", reason="extra 'ego' is not installed")
    contents = driven(NUM, "none")
    data = LogPairs(write_log(tmp_path / "drive", contents), cache_dir=tmp_path / "cache")
    assert data.pose_sources == {"drive": "estimated"}
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 2
    again = LogPairs(tmp_path / "drive", cache_dir=tmp_path / "cache")
    assert torch.equal(again[0].target_T_source, data[0].target_T_source)


def test_folders_of_logs_are_sequences(tmp_path: Path):
    (tmp_path / "logs" / "more").mkdir(parents=True)
    write_log(tmp_path / "logs" / "monday", driven(2))
    write_log(tmp_path / "logs" / "more" / "tuesday", driven(3), "sqlite3")
    write_log(tmp_path / "logs" / "wednesday", driven(2), "bag")
    data = LogPairs(tmp_path / "logs", cache_dir=tmp_path / "cache")
    assert list(data.pose_sources) == ["monday", "more/tuesday", "wednesday"]
    assert data.keys[1].startswith(f"own_log/more/tuesday/{START}->own_log/more/tuesday/") and len(data) == 4
    before, moved = data.provenance(), tmp_path / "elsewhere"
    (tmp_path / "logs").rename(moved)
    assert LogPairs(moved, cache_dir=tmp_path / "cache").provenance() == before


def test_topics_are_listed_where_one_must_be_chosen(tmp_path: Path):
    contents = driven(2)
    contents.clouds["/rear/points"] = contents.clouds["/points"][:1]
    path = write_log(tmp_path / "drive", contents)
    listed = r"set dataset\.topic to one of: /points \(2 messages\), /rear/points \(1 messages\)"
    with pytest.raises(ValueError, match=rf"2 PointCloud2 topics; {listed}"):
        LogPairs(path, cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=rf"no PointCloud2 topic /top; {listed}"):
        LogPairs(path, topic="/top", cache_dir=tmp_path / "cache")
    assert len(LogPairs(path, topic="/points", cache_dir=tmp_path / "cache")) == 1
    nothing = write_log(tmp_path / "nothing", Contents({}, tf=driven(2).tf))
    with pytest.raises(ValueError, match=r"no PointCloud2 messages; its topics are: /tf \(tf2_msgs/msg/TFMessage\)"):
        LogPairs(nothing, cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"no poses of topic /gps; set dataset\.poses to .* one of: none"):
        LogPairs(path, topic="/points", poses="/gps", cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"tf does not tell how velodyne moves in map; its frames are: base_link"):
        LogPairs(path, topic="/points", fixed_frame="map", cache_dir=tmp_path / "cache")
    with pytest.raises(ValueError, match=r"no column 'elongation', it has \['x', 'y', 'z', 'intensity'"):
        LogPairs(path, topic="/points", channels=["elongation"], scales=[1.0], cache_dir=tmp_path / "cache")[0]


def test_missing_returns_are_left_out(tmp_path: Path):
    contents = driven(2)
    xyz = recorded_sweeps(2)[0].xyz.copy()
    xyz[3], xyz[7] = np.nan, 0.0
    contents.clouds["/points"][0] = (START, velodyne_like(xyz, recorded_sweeps(2)[0].intensity))
    data = LogPairs(write_log(tmp_path / "drive", contents), cache_dir=tmp_path / "cache")
    assert len(data.sweep(0).xyz) == len(xyz) - 2
    np.testing.assert_array_equal(data.sweep(0).xyz, np.delete(xyz, [3, 7], 0))
