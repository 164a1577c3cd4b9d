"""Pairs of Waymo frames: against a second parser, and every way to break a record."""

import math
import pickle
import shutil
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from waymo_open_dataset import dataset_pb2

from equilidar.data import waymo_records
from equilidar.data.faults import FaultySweepError
from equilidar.data.protocols import PairDataset
from equilidar.data.waymo import Waymo
from equilidar.data.waymo_labelled import WaymoLabelled
from tests.data.fake_waymo import (
    HEIGHT,
    START,
    matrix,
    no_lasers,
    read_records,
    rewrite,
    segment_file,
    world_T_vehicle,
    write_records,
    write_segments,
)


def points_by_hand(frame: dataset_pb2.Frame) -> list[tuple[float, ...]]:
    """Return x, y, z, intensity, elongation, zone flag of each pixel with a return, one pixel at a time."""
    world_T_vehicle = np.array(frame.pose.transform).reshape(4, 4)
    found = []
    for number in (1, 2):
        for name in (1, 2, 3, 4, 5):
            (calibration,) = [c for c in frame.context.laser_calibrations if c.name == name]
            (laser,) = [one for one in frame.lasers if one.name == name]
            compressed = (laser.ri_return1, laser.ri_return2)[number - 1].range_image_compressed
            image = dataset_pb2.MatrixFloat.FromString(zlib.decompress(compressed))
            poses = dataset_pb2.MatrixFloat()
            if name == 1:
                poses.ParseFromString(zlib.decompress(laser.ri_return1.range_image_pose_compressed))
            height, width, _ = image.shape.dims
            extrinsic = np.array(calibration.extrinsic.transform).reshape(4, 4)
            low, high = calibration.beam_inclination_min, calibration.beam_inclination_max
            for pixel in range(height * width):
                distance, intensity, elongation, zone = image.data[4 * pixel : 4 * pixel + 4]
                if distance <= 0:
                    continue
                row, column = divmod(pixel, width)
                beam = height - 1 - row
                beams = calibration.beam_inclinations
                elevation = beams[beam] if beams else low + (beam + 0.5) / height * (high - low)
                azimuth = math.pi - (column + 0.5) / width * 2 * math.pi - math.atan2(extrinsic[1, 0], extrinsic[0, 0])
                ray = [math.cos(elevation) * math.cos(azimuth), math.cos(elevation) * math.sin(azimuth)]
                point = extrinsic @ [*(distance * v for v in ray), distance * math.sin(elevation), 1]
                if name == 1:
                    point = np.linalg.inv(world_T_vehicle) @ (pixel_pose(poses.data[6 * pixel : 6 * pixel + 6]) @ point)
                found.append((*point[:3], intensity, elongation, zone))
    return found


def pixel_pose(numbers: Any) -> np.ndarray:
    roll, pitch, yaw = numbers[:3]
    about_x = [[1, 0, 0], [0, math.cos(roll), -math.sin(roll)], [0, math.sin(roll), math.cos(roll)]]
    about_y = [[math.cos(pitch), 0, math.sin(pitch)], [0, 1, 0], [-math.sin(pitch), 0, math.cos(pitch)]]
    about_z = [[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]]
    pose = np.eye(4)
    pose[:3, :3] = np.array(about_z) @ about_y @ about_x
    pose[:3, 3] = numbers[3:]
    return pose


def test_pairs_agree_with_a_second_parser(waymo_root: Path, waymo_simulated: list):
    data = Waymo(waymo_root, channels=("intensity", "elongation", "tanh_intensity"))
    assert isinstance(data, PairDataset) and len(data) == 4 and data.num_sweeps == 6 and not data.left_out
    assert data.keys[0] == f"waymo/100_000/{START}->waymo/100_000/{START + 100_000}"
    for index in (0, 5):
        frame = dataset_pb2.Frame.FromString(read_records(segment_file(waymo_root, index // 3))[index % 3])
        expected = np.array(points_by_hand(frame))
        sweep = data.sweep(index)
        np.testing.assert_allclose(sweep.xyz.numpy(), expected[:, :3], atol=2e-5)
        np.testing.assert_array_equal(sweep.features[:, :2].numpy(), expected[:, 3:5].astype(np.float32))
        np.testing.assert_allclose(sweep.features[:, 2].numpy(), np.tanh(expected[:, 3]), atol=1e-6)
        pose = torch.from_numpy(world_T_vehicle(waymo_simulated[index // 3][index % 3]))
        torch.testing.assert_close(sweep.world_T_sensor, pose, atol=1e-12, rtol=0)
        assert sweep.timestamp == pytest.approx(frame.timestamp_micros * 1e-6, abs=1e-6)
    assert sweep.contract.frame == "ego"


def test_the_top_lidar_s_first_return_is_the_simulated_sweep(waymo_root: Path, waymo_simulated: list):
    sweep = Waymo(waymo_root, lidars=["TOP"], returns=[1]).sweep(1)
    order = np.lexsort((waymo_simulated[0][1].column, -waymo_simulated[0][1].beam))
    np.testing.assert_allclose(sweep.xyz.numpy(), waymo_simulated[0][1].xyz[order] + [0, 0, HEIGHT], atol=1e-4)
    with_time = Waymo(waymo_root, lidars=["TOP"], returns=[1], accumulate=2).sweep(1)
    assert with_time.contract.channels == ("intensity", "elongation", "time")
    assert len(with_time.xyz) == len(sweep.xyz) + len(waymo_simulated[0][0].xyz)
    assert float(with_time.features[-1, 2]) == pytest.approx(0.1, abs=1e-5)


def test_it_goes_to_a_worker(waymo_root: Path, waymo_simulated: list):
    data = Waymo(waymo_root)
    sent = pickle.loads(pickle.dumps(data))
    assert torch.equal(sent[3].target.xyz, data[3].target.xyz) and sent.provenance() == data.provenance()


def test_memory_holds_one_record_at_most(tmp_path: Path):
    """Listing holds none, reading one: a segment of the full size has 198 records, a gigabyte."""
    write_segments(tmp_path, ("100_000",), frames=2, change=lambda f: f.images.add(name=2, image=bytes(3_000_000)))

    def peak(work: Any) -> float:
        tracemalloc.start()
        result = work()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most if result is not None else 0.0

    data = Waymo(tmp_path)
    assert 0 < peak(lambda: Waymo(tmp_path, cache_dir=tmp_path / "cache")) < 1e6
    assert 3e6 < peak(lambda: data.sweep(0)) < 5e6


def test_files_are_listed_once(waymo_copy: Path, monkeypatch: pytest.MonkeyPatch):
    before = Waymo(waymo_copy)
    with monkeypatch.context() as patched:
        patched.setattr(waymo_records, "list_records", None)
        again = Waymo(waymo_copy)
    assert again.provenance() == before.provenance() and again.runs[1].frames == before.runs[1].frames
    np.testing.assert_array_equal(again.runs[1].world_T_sensor, before.runs[1].world_T_sensor)
    path = segment_file(waymo_copy)
    write_records(path, read_records(path)[:2])
    assert Waymo(waymo_copy).num_sweeps == 5, "a file that has changed is listed anew"


def test_a_missing_frame_cuts_the_segment(waymo_copy: Path):
    write_segments(waymo_copy, ("300_000",), frames=5)
    contents = read_records(segment_file(waymo_copy, 2))
    write_records(segment_file(waymo_copy, 2), contents[:2] + contents[3:])
    assert len(Waymo(waymo_copy, segments=["300_000"])) == 2


def test_fields_in_another_order_are_read(waymo_copy: Path):
    """Protobuf allows any order: a pose at the record's end is found, beyond the head that is read first."""
    path = segment_file(waymo_copy)
    before = [Waymo(waymo_copy)[i].target_T_source for i in range(2)]
    contents = []
    for content in read_records(path):
        late, early = dataset_pb2.Frame(), dataset_pb2.Frame.FromString(content)
        late.pose.CopyFrom(early.pose)
        late.timestamp_micros = early.timestamp_micros
        early.ClearField("pose")
        early.ClearField("timestamp_micros")
        contents.append(early.SerializePartialToString() + late.SerializePartialToString())
    write_records(path, contents)
    for index, expected in enumerate(before):
        assert torch.equal(Waymo(waymo_copy)[index].target_T_source, expected)


def test_corrupt_segments_are_left_out_whole(waymo_copy: Path, caplog: pytest.LogCaptureFixture):
    path = segment_file(waymo_copy)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    data = Waymo(waymo_copy)
    assert list(data.left_out) == [path.name] and len(data) == 2 and "truncated" in caplog.text
    assert data.provenance()["left_out"] == data.left_out
    path.write_bytes(whole[:3] + b"\x01" + whole[4:])
    assert "wrong checksum of the length" in Waymo(waymo_copy).left_out[path.name]
    write_records(path, [b"\x0f no protobuf"])
    assert "no Waymo frame" in Waymo(waymo_copy).left_out[path.name]
    path.write_bytes(whole)
    for change, message in (
        (lambda f: setattr(f, "timestamp_micros", START), "time stamps do not rise"),
        (lambda f: f.pose.ClearField("transform"), "lacks a Waymo frame's name, time or pose"),
        (lambda f: setattr(f.context, "name", "other"), "more than one segment"),
    ):
        rewrite(path, 1, change)
        assert message in Waymo(waymo_copy).left_out[path.name]
        path.write_bytes(whole)
    segment_file(waymo_copy, 1).write_bytes(b"")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no segment can be used.*empty file"):
        Waymo(waymo_copy)


def test_corrupt_records_are_faulty_sweeps(waymo_copy: Path):
    path = segment_file(waymo_copy)
    whole = path.read_bytes()
    data, labelled = Waymo(waymo_copy), WaymoLabelled(waymo_copy)
    position = data.runs[0].frames[1].position
    path.write_bytes(whole[: position + 5000] + b"\x00\x01\x02" + whole[position + 5003 :])
    with pytest.raises(FaultySweepError, match=r"wrong checksum of the record at byte \d+; download"):
        data.sweep(1)
    assert len(data.sweep(0).xyz) and len(data.sweep(2).xyz), "its neighbours are whole"
    with pytest.raises(FaultySweepError, match="wrong checksum"):
        labelled.objects(1)
    path.unlink()
    with pytest.raises(FaultySweepError, match="cannot be read"):
        data.sweep(1)


def not_finite(frame: dataset_pb2.Frame) -> None:
    image = np.full((8, 60, 4), np.nan, np.float32)
    frame.lasers[0].ri_return1.range_image_compressed = matrix(image)


def columns(frame: dataset_pb2.Frame) -> None:
    frame.lasers[0].ri_return1.range_image_compressed = matrix(np.ones((8, 60, 3), np.float32))


def compression(frame: dataset_pb2.Frame) -> None:
    frame.lasers[0].ri_return1.range_image_compressed = b"not zlib"


def uncompressed(frame: dataset_pb2.Frame) -> None:
    stored = frame.lasers[0].ri_return1
    stored.range_image.ParseFromString(zlib.decompress(stored.range_image_compressed))
    stored.ClearField("range_image_compressed")


def rows(frame: dataset_pb2.Frame) -> None:
    frame.context.laser_calibrations[0].beam_inclinations.pop()


def calibration(frame: dataset_pb2.Frame) -> None:
    del frame.context.laser_calibrations[0]


def pixel_poses(frame: dataset_pb2.Frame) -> None:
    frame.lasers[0].ri_return1.range_image_pose_compressed = matrix(np.ones((4, 60, 6), np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_lasers, "no points of TOP, FRONT"),
        (not_finite, "lidar TOP, return 1: 1920 numbers are not finite"),
        (columns, r"1440 numbers of shape \(8, 60, 3\), expected H x W x 4"),
        (compression, "lidar TOP, return 1: no range image"),
        (uncompressed, "lidar TOP, return 1: .* stored uncompressed, .* download version 1.2"),
        (rows, "7 beam inclinations for 8 rows"),
        (calibration, "no calibration of this lidar"),
        (pixel_poses, r"\(4, 60, 6\) poses for an image of \(8, 60, 4\)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_broken_frames(waymo_copy: Path, change: Any, message: str):
    rewrite(segment_file(waymo_copy), 0, change)
    with pytest.raises(FaultySweepError, match=message) as caught:
        Waymo(waymo_copy).sweep(0)
    assert str(segment_file(waymo_copy)) in str(caught.value) and str(START) in str(caught.value)


def test_settings_and_folders(
    waymo_root: Path, waymo_simulated: list, waymo_copy: Path, monkeypatch: pytest.MonkeyPatch
):
    for settings, message in (
        ({"channels": ["ring"]}, r"dataset\.channels must be of"),
        ({"lidars": ["BACK"]}, r"dataset\.lidars must be of"),
        ({"returns": []}, r"may not be empty"),
        ({"gap": 3}, "no two sweeps are 3 frames apart"),
    ):
        with pytest.raises(ValueError, match=message):
            Waymo(waymo_root, **settings)
    with pytest.raises(ValueError, match=r"dataset\.class_names must be of Vehicle, .*got \['Car'\]"):
        WaymoLabelled(waymo_root, class_names=["Car"])
    with pytest.raises(FileNotFoundError, match=r"validation does not exist.*dataset\.split"):
        Waymo(waymo_root, "validation")
    with pytest.raises(FileNotFoundError, match="no segment 999"):
        Waymo(waymo_root, segments=["100", "999"])
    shutil.copy(segment_file(waymo_copy), waymo_copy / "training" / "again.tfrecord")
    with pytest.raises(ValueError, match=r"both hold segment waymo/100_000; remove one"):
        Waymo(waymo_copy)
    monkeypatch.setitem(sys.modules, "waymo_open_dataset", None)
    with pytest.raises(ImportError, match=r"pip install --no-deps waymo-open-dataset-tf-2-12-0==1\.6\.7"):
        Waymo(waymo_root)
