"""Argoverse 2: pairs, annotated sweeps, flow files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import feather

from equilidar.data.argoverse2 import Argoverse2, find_logs
from equilidar.data.argoverse2_flow import Argoverse2Flow
from equilidar.data.argoverse2_labelled import Argoverse2Labelled
from equilidar.data.faults import FaultySweepError
from equilidar.data.protocols import LabelledDataset, PairDataset
from equilidar.formats.argoverse2_annotations import EVALUATED_CATEGORIES
from tests.data.fake_argoverse2 import (
    LOG,
    START,
    STEP,
    pose_columns,
    write_annotations,
    write_simulated_log,
    write_static_log,
    write_table,
)
from tests.data.fake_sequence import recorded_sweeps

EVERY_SPLIT = ["train", "val", "test"]


def test_pairs_are_carried_by_the_city_poses(tmp_path: Path):
    write_static_log(tmp_path, 6, missing=(2,))
    data = Argoverse2(tmp_path)
    assert isinstance(data, PairDataset)
    first = [START + STEP * i for i in (0, 3, 4)]
    assert data.keys == [f"argoverse2/{LOG}/{t}->argoverse2/{LOG}/{t + STEP}" for t in first]
    assert data.contract.frame == "ego" and data.contract.channels == ("intensity",)
    for index in range(len(data)):
        pair = data[index]
        moved = pair.source.xyz.double() @ pair.target_T_source[:3, :3].T + pair.target_T_source[:3, 3]
        # Coordinates are half floats: 1/64 m apart beyond 16 m.
        assert float((moved - pair.target.xyz).abs().max()) < 0.04
        assert float((pair.source.xyz - pair.target.xyz).abs().max()) > 0.5
        assert pair.target.timestamp - pair.source.timestamp == pytest.approx(0.1, abs=1e-6)
    assert len(Argoverse2(tmp_path, gap=2)) == 1


def test_channels_have_names_and_units(tmp_path: Path):
    write_static_log(tmp_path)
    sweep = Argoverse2(tmp_path, channels=["intensity", "ring", "time"], scales=[255.0, 1.0, 0.1]).sweep(0)
    table = feather.read_table(tmp_path / LOG / "sensors" / "lidar" / f"{START}.feather")
    expected = [table[name].to_numpy() for name in ("intensity", "laser_number", "offset_ns")]
    np.testing.assert_allclose(sweep.features[:, 0], expected[0] / 255, atol=1e-6)
    np.testing.assert_array_equal(sweep.features[:, 1], expected[1])
    np.testing.assert_allclose(sweep.features[:, 2], expected[2] * 1e-8, atol=1e-6)
    with pytest.raises(ValueError, match=r"dataset\.channels must be of intensity, ring, time"):
        Argoverse2(tmp_path, channels=["elongation"], scales=[1.0])


def test_only_logs_of_the_asked_splits(tmp_path: Path):
    for split in EVERY_SPLIT:
        write_static_log(tmp_path / "sensor" / split, 2, log=f"log-{split}")
    root = tmp_path / "sensor"
    assert [log.name for log in Argoverse2(root).logs] == ["log-train"]
    assert [log.name for log in Argoverse2(root, splits=["test", "val"]).logs] == ["log-test", "log-val"]
    assert [log.name for log in find_logs(root / "val" / "log-val", ["val"], None)] == ["log-val"]
    with pytest.raises(FileNotFoundError, match=r"are of other splits than \['train'\]"):
        Argoverse2(root / "val")
    with pytest.raises(FileNotFoundError, match=r"no log log-7 under .*log-train"):
        Argoverse2(root, logs=["log-7"])
    with pytest.raises(ValueError, match=r"dataset\.splits must be of train, val, test"):
        Argoverse2(root, splits=["training"])


def test_sweeps_without_a_pose_are_left_out(tmp_path: Path):
    poses = write_static_log(tmp_path, 5)
    table = tmp_path / LOG / "city_SE3_egovehicle.feather"
    kept = np.array([0, 1, 3, 4])
    write_table(table, timestamp_ns=START + STEP * kept, **pose_columns(poses[kept]))
    assert len(Argoverse2(tmp_path)) == 2
    write_table(table, timestamp_ns=START - STEP * kept - 7, **pose_columns(poses[kept]))
    with pytest.raises(ValueError, match=r"city_SE3_egovehicle\.feather: no pose at the time of any of the 5 sweeps"):
        Argoverse2(tmp_path)
    table.write_bytes(table.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"city_SE3_egovehicle\.feather: cannot be read as feather"):
        Argoverse2(tmp_path)
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"city_SE3_egovehicle\.feather"):
        Argoverse2(tmp_path)


def test_broken_sweeps_are_faults_that_name_the_file(tmp_path: Path):
    write_static_log(tmp_path, 2)
    data = Argoverse2(tmp_path)
    path = tmp_path / LOG / "sensors" / "lidar" / f"{START}.feather"
    whole, table = path.read_bytes(), feather.read_table(path)
    half = table["x"].to_numpy().copy()
    half[3] = np.nan
    broken = {
        "cannot be read as feather": whole[: len(whole) // 2],
        "no column intensity": table.drop_columns(["intensity"]),
        "1 of 200 points are not finite": table.set_column(0, "x", pa.array(half)),
        "no points": table.slice(0, 0),
        "no feather file": None,
    }
    for message, content in broken.items():
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is None:
            path.unlink()
        else:
            feather.write_feather(content, str(path))
        with pytest.raises(FaultySweepError, match=rf"{START}\.feather.*{message}|{message}.*{START}\.feather"):
            data[0]


def test_annotations_become_boxes(tmp_path: Path):
    """A simulated street through the format and back: boxes, point counts, tracks, velocities."""
    write_simulated_log(tmp_path)
    data = Argoverse2Labelled(tmp_path, min_points=0)
    assert isinstance(data, LabelledDataset) and len(data) == 4
    numbers = {}
    for index, recorded in enumerate(recorded_sweeps(4)):
        sample, objects = data[index], data.objects(index)
        assert [data.class_names[i] for i in sample.boxes.label] == list(objects.category)
        np.testing.assert_allclose(sample.boxes.as_tensor()[:, :6], recorded.boxes[:, :6], atol=1e-5)
        turn = np.mod(sample.boxes.yaw.numpy() - recorded.boxes[:, 6] + np.pi, 2 * np.pi) - np.pi
        assert np.abs(turn).max() < 1e-5
        np.testing.assert_array_equal(sample.boxes.contains(sample.sweep.xyz).sum(1), objects.num_points)
        for ours, theirs in zip(sample.boxes.track.tolist(), recorded.track.tolist(), strict=True):
            assert numbers.setdefault(theirs, ours) == ours
        known = ~torch.isnan(sample.boxes.velocity).any(1).numpy()
        assert known.sum() >= 3
        difference = np.linalg.norm(sample.boxes.velocity.numpy() - recorded.velocity, axis=1)[known]
        assert np.median(difference) < 0.05, difference
    assert float(data[1].boxes.velocity.nan_to_num().norm(dim=1).max()) > 1.0, "nothing moves"
    assert len(set(numbers.values())) == len(numbers)
    assert len(data.provenance()["hash"]) == 16


def test_classes_and_point_counts_select_boxes(tmp_path: Path):
    write_simulated_log(tmp_path)
    everything = Argoverse2Labelled(tmp_path, min_points=0).objects(0)
    some = Argoverse2Labelled(tmp_path, class_names=["PEDESTRIAN", "REGULAR_VEHICLE"], min_points=3)
    counted = everything.num_points >= 3
    expected = counted & np.isin(everything.category.astype(str), some.class_names)
    assert 0 < expected.sum() < len(everything)
    assert len(some[0].boxes) == expected.sum()
    assert set(some[0].boxes.label.tolist()) <= {0, 1}


def test_accumulated_sweeps_keep_their_boxes(tmp_path: Path):
    write_simulated_log(tmp_path)
    one, three = (Argoverse2Labelled(tmp_path, accumulate=number) for number in (1, 3))
    assert three.contract.channels == ("intensity", "time") == Argoverse2(tmp_path, accumulate=3).contract.channels
    assert len(three[2].sweep.xyz) == sum(len(one.sweep(i).xyz) for i in range(3))
    assert torch.equal(three[2].boxes.center, one[2].boxes.center)


def test_label_errors(tmp_path: Path):
    write_static_log(tmp_path, 2)
    with pytest.raises(FileNotFoundError, match=r"annotations\.feather"):
        Argoverse2Labelled(tmp_path)
    row = {"timestamp_ns": START, "track_uuid": "a", "category": "BUS", "size": [9, 3, 3], "pose": np.eye(4)}
    write_annotations(tmp_path / LOG, [{**row, "num_points": 5, "category": "SPACESHIP"}])
    with pytest.raises(ValueError, match=r"annotations\.feather: unknown category 'SPACESHIP'"):
        Argoverse2Labelled(tmp_path)[0]
    write_annotations(tmp_path / LOG, [{**row, "num_points": 5, "timestamp_ns": START + 1}])
    with pytest.raises(ValueError, match=r"none of the sweeps of 1 logs .* is annotated"):
        Argoverse2Labelled(tmp_path)
    write_annotations(tmp_path / LOG, [{**row, "num_points": 0}])
    assert len(Argoverse2Labelled(tmp_path)[0].boxes) == 0
    assert bool(torch.isnan(Argoverse2Labelled(tmp_path, min_points=0)[0].boxes.velocity).all())
    with pytest.raises(ValueError, match=r"dataset\.class_names"):
        Argoverse2Labelled(tmp_path, class_names=["Car"])


def test_flow_files_belong_to_their_sweep(tmp_path: Path):
    write_simulated_log(tmp_path)
    data = Argoverse2Flow(tmp_path)
    assert len(data) == 3 and data.from_labels
    pair, recorded = data[1], recorded_sweeps(4)[1]
    assert pair.flow is not None and pair.flow_valid is not None
    np.testing.assert_allclose(pair.flow, recorded.flow, atol=1e-6)
    assert bool(pair.flow_valid.all())
    path = tmp_path / LOG / "flow" / f"{START + STEP}.feather"
    table = feather.read_table(path)
    valid = np.arange(table.num_rows) % 2 == 0
    feather.write_feather(table.append_column("is_valid", pa.array(valid)), str(path))
    np.testing.assert_array_equal(Argoverse2Flow(tmp_path)[1].flow_valid, valid)
    feather.write_feather(table.slice(0, 7), str(path))
    with pytest.raises(FaultySweepError, match=rf"{START + STEP}\.feather: 7 rows of flow for a sweep of"):
        data[1]
    path.unlink()
    assert len(Argoverse2Flow(tmp_path)) == 2
    (tmp_path / LOG / "flow").rename(tmp_path / LOG / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"dataset\.flow_root"):
        Argoverse2Flow(tmp_path)
    (tmp_path / "flows").mkdir()
    (tmp_path / LOG / "elsewhere").rename(tmp_path / "flows" / LOG)
    assert len(Argoverse2Flow(tmp_path, flow_root=tmp_path / "flows")) == 2


@pytest.fixture(scope="module")
def sensor_root(samples: Path) -> Path:
    if not any(samples.glob("argoverse2/sensor/*/sensors/lidar")):
        pytest.skip(f"no argoverse2/sensor under {samples}")
    return samples / "argoverse2" / "sensor"


def test_sample_points_in_boxes_equal_the_annotated_counts(sensor_root: Path):
    data = Argoverse2Labelled(sensor_root, splits=EVERY_SPLIT, class_names=EVALUATED_CATEGORIES, min_points=0)
    assert len(data)
    for index in range(len(data)):
        counted = data[index].boxes.contains(data.sweep(index).xyz).sum(1).numpy()
        np.testing.assert_array_equal(counted, data.objects(index).num_points)


def test_sample_tracks_move_as_their_positions_do(sensor_root: Path):
    """The velocity of each box carries it to the next annotated sweep, in the city."""
    data = Argoverse2Labelled(sensor_root, splits=EVERY_SPLIT, min_points=0)
    pairs = Argoverse2(sensor_root, splits=EVERY_SPLIT)
    row_of = {key: i for i, key in enumerate(data.keys)}
    compared = 0
    for index, key in enumerate(pairs.keys):
        source, target = key.split("->")
        if source not in row_of or target not in row_of:
            continue
        pair, a, b = pairs[index], data[row_of[source]].boxes, data[row_of[target]].boxes
        seconds = pair.target.timestamp - pair.source.timestamp
        motion = pair.target_T_source
        moved = (a.center + a.velocity * seconds).double() @ motion[:3, :3].T + motion[:3, 3]
        there = {track: i for i, track in enumerate(b.track.tolist())}
        rows = [(i, there[track]) for i, track in enumerate(a.track.tolist()) if track in there]
        left, right = (torch.tensor(side) for side in zip(*rows, strict=True))
        error = (moved[left] - b.center[right]).norm(dim=1)
        compared += int((~error.isnan()).sum())
        assert float(error.nan_to_num().max()) < 0.12
    assert compared or not len(pairs)


def test_sample_flow_agrees_with_the_poses_on_static_points(sensor_root: Path):
    if not any(sensor_root.glob("*/flow*")):
        pytest.skip(f"no flow files under {sensor_root}")
    data = Argoverse2Flow(sensor_root, splits=EVERY_SPLIT)
    for index, path in enumerate(data.flow_files):
        pair = data[index]
        dynamic = torch.from_numpy(feather.read_table(path)["dynamic"].to_numpy())
        assert pair.flow is not None and pair.flow_valid is not None
        motion = pair.target_T_source
        rigid = pair.source.xyz.double() @ motion[:3, :3].T + motion[:3, 3] - pair.source.xyz
        error = (rigid - pair.flow).norm(dim=1)[~dynamic & pair.flow_valid]
        assert len(error) > 1000
        assert float(error.median()) < 1e-3 and float(error.quantile(0.99)) < 0.05, error.max()
