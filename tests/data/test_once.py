"""ONCE: pairs and annotated frames."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from equilidar.data.faults import FaultySweepError
from equilidar.data.once import Once
from equilidar.data.once_labelled import OnceLabelled
from equilidar.data.protocols import LabelledDataset, PairDataset
from tests.data.fake_once import SEQUENCE, START, STEP, write_json, write_once
from tests.data.fake_sequence import recorded_sweeps


def test_sweeps_point_forward(tmp_path: Path):
    write_once(tmp_path)
    data = Once(tmp_path)
    assert isinstance(data, PairDataset) and len(data) == 3
    assert data.keys[0] == f"once/{SEQUENCE}/{START}->once/{SEQUENCE}/{START + STEP}"
    for index, recorded in enumerate(recorded_sweeps(4)):
        sweep = data.sweep(index)
        np.testing.assert_allclose(sweep.xyz, recorded.xyz, atol=1e-6)
        np.testing.assert_allclose(sweep.features[:, 0], recorded.intensity, atol=1e-6)
    pair, (a, b) = data[0], recorded_sweeps(4)[:2]
    np.testing.assert_allclose(pair.target_T_source, np.linalg.inv(b.world_T_sensor) @ a.world_T_sensor, atol=1e-9)
    assert np.linalg.norm(pair.target_T_source[:3, 3]) > 0.1
    assert pair.target.timestamp - pair.source.timestamp == pytest.approx(0.5)


def test_poses_put_sweeps_where_the_development_kit_does(tmp_path: Path):
    """Its rule, on the files' own axes: points rotated by quaternion x, y, z, w and shifted by the last three."""
    content = write_once(tmp_path)
    data = Once(tmp_path)
    for index, entry in enumerate(content["frames"]):
        path = tmp_path / "data" / SEQUENCE / "lidar_roof" / f"{entry['frame_id']}.bin"
        raw = np.fromfile(path, "<f4").reshape(-1, 4)[:, :3].astype(np.float64)
        expected = raw @ Rotation.from_quat(entry["pose"][:4]).as_matrix().T + entry["pose"][4:]
        sweep = data.sweep(index)
        assert sweep.world_T_sensor is not None
        pose = sweep.world_T_sensor.numpy()
        np.testing.assert_allclose(sweep.xyz.numpy() @ pose[:3, :3].T + pose[:3, 3], expected, atol=1e-5)


def test_frames_without_pose_or_sweep_are_left_out(tmp_path: Path):
    content = write_once(tmp_path)
    content["frames"][1]["pose"] = [0, 0, 0, 0, 0, 0, 0]
    write_json(tmp_path, content)
    assert [key.split("/")[-1] for key in Once(tmp_path).keys] == [str(START + 3 * STEP)]
    content["frames"][1]["pose"] = content["frames"][0]["pose"]
    del content["frames"][0]["pose"]
    write_json(tmp_path, content)
    assert len(Once(tmp_path)) == 2
    (tmp_path / "data" / SEQUENCE / "lidar_roof" / f"{START + 2 * STEP}.bin").unlink()
    with pytest.raises(ValueError, match="no two sweeps are 1 frames apart"):
        Once(tmp_path)


def test_splits_and_sequences(tmp_path: Path):
    write_once(tmp_path, "000001", split="raw_small")
    write_once(tmp_path, "000002", split="val")
    (tmp_path / "ImageSets" / "raw_small.txt").write_text("000001\n000009\n")
    assert Once(tmp_path, splits=["raw_small"]).sequences == ["000001"]
    assert Once(tmp_path, splits=["val"]).sequences == ["000002"]
    assert Once(tmp_path, sequences=["000002"]).sequences == ["000002"]
    assert Once(tmp_path).sequences == ["000001"]
    with pytest.raises(FileNotFoundError, match=r"raw_medium\.txt.*dataset\.sequences"):
        Once(tmp_path, splits=["raw_medium", "raw_large"])
    with pytest.raises(ValueError, match=r"dataset\.splits must be of train"):
        Once(tmp_path, splits=["training"])
    with pytest.raises(FileNotFoundError, match=r"000007 does not exist.*dataset\.sequences"):
        Once(tmp_path, sequences=["000007"])
    (tmp_path / "ImageSets" / "test.txt").write_text("000011\n")
    with pytest.raises(FileNotFoundError, match="none of the 1 sequences of test"):
        Once(tmp_path, splits=["test"])


def test_annotations_become_boxes(tmp_path: Path):
    content = write_once(tmp_path, split="train")
    del content["frames"][2]["annos"]
    content["frames"][3]["annos"] = {"names": [], "boxes_3d": []}
    write_json(tmp_path, content)
    data = OnceLabelled(tmp_path, class_names=["Pedestrian", "Car", "Cyclist"], min_points=0)
    assert isinstance(data, LabelledDataset) and len(data) == 3
    recorded = recorded_sweeps(4)[0]
    boxes = data[0].boxes
    np.testing.assert_allclose(boxes.as_tensor()[:, :6], recorded.boxes[:, :6], atol=1e-5)
    turn = np.mod(boxes.yaw.numpy() - recorded.boxes[:, 6] + np.pi, 2 * np.pi) - np.pi
    assert np.abs(turn).max() < 1e-5
    assert boxes.label.tolist() == [[1, 0, 2][label] for label in recorded.label]
    assert bool(boxes.velocity.isnan().all()) and set(boxes.track.tolist()) == {-1}
    assert len(data[2].boxes) == 0
    counts = boxes.contains(data[0].sweep.xyz).sum(1)
    few = OnceLabelled(tmp_path, class_names=["Pedestrian", "Car", "Cyclist"], min_points=5)[0].boxes
    assert len(few) == int((counts >= 5).sum()) < len(boxes)


def test_errors_name_file_and_frame(tmp_path: Path):
    content = write_once(tmp_path, split="train")
    path = tmp_path / "data" / SEQUENCE / f"{SEQUENCE}.json"
    with pytest.raises(ValueError, match=r"dataset\.class_names must be of Car"):
        OnceLabelled(tmp_path, class_names=["Tram"])
    content["frames"][1]["annos"]["names"][0] = "Tram"
    write_json(tmp_path, content)
    with pytest.raises(ValueError, match=rf"{SEQUENCE}\.json, frame {START + STEP}: unknown class 'Tram'"):
        OnceLabelled(tmp_path)
    content["frames"][1]["annos"]["names"].pop()
    write_json(tmp_path, content)
    with pytest.raises(ValueError, match="as many names as boxes_3d"):
        OnceLabelled(tmp_path)
    path.write_text(path.read_text()[:500])
    for reader in (OnceLabelled, Once):
        with pytest.raises(ValueError, match=rf"{SEQUENCE}\.json: no ONCE sequence"):
            reader(tmp_path, splits=["train"])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{SEQUENCE}\.json: it holds the sequence's poses"):
        Once(tmp_path, splits=["train"])


def test_a_truncated_sweep_is_a_fault(tmp_path: Path):
    write_once(tmp_path)
    path = tmp_path / "data" / SEQUENCE / "lidar_roof" / f"{START}.bin"
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(FaultySweepError, match=rf"{START}\.bin: .* truncated"):
        Once(tmp_path)[0]
    assert len(Once(tmp_path)[1].source.xyz)
