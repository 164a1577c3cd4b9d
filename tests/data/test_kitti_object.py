"""KITTI calibration, labels and the object data set."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.data.faults import FaultySweepError
from equilidar.data.kitti_calibration import KittiCalibration, read_calibration, read_png_size
from equilidar.data.kitti_labels import KittiObjects
from equilidar.data.kitti_object import KittiObject
from equilidar.data.point_files import PointFormat
from equilidar.data.protocols import LabelledDataset
from tests.data.fake_data import cloud, write_bin
from tests.data.fake_kitti import CAR, DONT_CARE, P2, VAN, write_calibration, write_labels, write_object_data

ALIGNED = KittiCalibration(P2, np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]))


def one_object(rotation_y: float, bottom: tuple[float, float, float], hwl: tuple[float, float, float]) -> KittiObjects:
    number = np.array([0.0])
    return KittiObjects(
        ("Car",),
        number,
        np.array([0]),
        number,
        np.zeros((1, 4)),
        np.array([hwl]),
        np.array([bottom]),
        np.array([rotation_y]),
    )


@given(
    ry=st.floats(-math.pi, math.pi),
    x=st.floats(-20, 20),
    y=st.floats(-1, 3),
    z=st.floats(1, 60),
    hwl=st.tuples(st.floats(0.5, 3), st.floats(0.5, 3), st.floats(0.5, 10)),
)
def test_corners_are_those_of_the_development_kit(ry: float, x: float, y: float, z: float, hwl: tuple):
    """The kit: corners (+-l/2, 0 or -h, +-w/2) turned about the camera's y axis, then moved to the bottom center."""
    height, width, length = hwl
    corners = np.array([[sx * length / 2, -h, sz * width / 2] for h in (0, height) for sx in (1, -1) for sz in (1, -1)])
    rotation = np.array([[math.cos(ry), 0, math.sin(ry)], [0, 1, 0], [-math.sin(ry), 0, math.cos(ry)]])
    camera = corners @ rotation.T + [x, y, z]
    expected = np.stack([camera[:, 2], -camera[:, 0], -camera[:, 1]], 1)

    box = one_object(ry, (x, y, z), hwl).boxes(ALIGNED, ("Car",))

    distance = torch.cdist(box.corners()[0].double(), torch.from_numpy(expected))
    assert float(distance.min(0).values.max()) < 1e-4 and float(distance.min(1).values.max()) < 1e-4
    heading = torch.tensor([box.yaw.cos(), box.yaw.sin()])
    assert torch.allclose(heading.double(), torch.tensor([-math.sin(ry), -math.cos(ry)]).double(), atol=1e-5)


def test_classes_are_chosen_and_dont_care_dropped(tmp_path: Path):
    objects = KittiObjects.read(write_labels(tmp_path / "a.txt", [DONT_CARE, VAN, CAR]))
    assert objects.types == ("DontCare", "Van", "Car") and len(objects) == 3
    assert objects.occluded.tolist() == [-1, 0, 0]
    assert objects.image_box[2].tolist() == [100, 150, 200, 250]
    assert objects.boxes(ALIGNED, ("Car", "Van")).label.tolist() == [1, 0]
    assert objects.boxes(ALIGNED, ("Car",)).size.tolist() == [pytest.approx([4.0, 1.6, 1.5])]
    assert len(objects.boxes(ALIGNED, ("Cyclist",))) == 0


def test_empty_label_file_has_no_objects(tmp_path: Path):
    objects = KittiObjects.read(write_labels(tmp_path / "a.txt", []))
    assert len(objects) == 0 and len(objects.boxes(ALIGNED, ("Car",))) == 0


@pytest.mark.parametrize("bad", ["Car 0 0", CAR.replace("4.00", "four")])
def test_bad_label_rows_are_named(tmp_path: Path, bad: str):
    with pytest.raises(ValueError, match=r"a\.txt"):
        KittiObjects.read(write_labels(tmp_path / "a.txt", [CAR, bad]))


def test_projection_of_known_points():
    """Ahead on the optical axis, and behind: P2 puts (0, 0, z) at its principal point but for the stereo shift."""
    uv, depth = ALIGNED.project(torch.tensor([[10.0, 0, 0], [10, -1, 0], [-10, 0, 0]]))
    shift = P2[0, 3] / (10 + P2[2, 3])
    scale = 10 / (10 + P2[2, 3])
    assert uv[0].tolist() == pytest.approx([609.5593 * scale + shift, 172.854 * scale + P2[1, 3] / (10 + P2[2, 3])])
    assert float(uv[1, 0] - uv[0, 0]) == pytest.approx(721.5377 / (10 + P2[2, 3]))
    assert depth.tolist() == pytest.approx([10 + P2[2, 3], 10 + P2[2, 3], -10 + P2[2, 3]])


def test_what_is_in_the_image():
    points = torch.tensor([[10.0, 0, 0], [-10, 0, 0], [10, 20, 0], [10, -20, 0], [10, 0, 9], [10, 0, -9]])
    assert ALIGNED.in_image(points, (1242, 375)).tolist() == [True, False, False, False, False, False]


def test_image_size_follows_the_camera():
    assert ALIGNED.image_size() == (1242, 375)
    other = P2.copy()
    other[0, 0] = 707.0493
    assert KittiCalibration(other, np.eye(4)).image_size() == (1224, 370)
    other[0, 0] = 500
    assert KittiCalibration(other, np.eye(4)).image_size() == (1242, 375)


def test_calibration_errors(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_calibration(tmp_path / "none.txt")
    path = write_calibration(tmp_path / "a.txt")
    path.write_text(path.read_text().replace("R0_rect", "R_rect"))
    with pytest.raises(ValueError, match=r"R0_rect with 3 x 3"):
        read_calibration(path)


def test_splits(tmp_path: Path):
    root = write_object_data(tmp_path)
    assert KittiObject(root, "train").frame_ids == ["000000", "000001"]
    assert KittiObject(root, "val").keys == ["kitti_object/training/000002"]
    assert KittiObject(root, "all").frame_ids == ["000000", "000001", "000002"]
    assert KittiObject(root, str(root / "ImageSets" / "val.txt")).frame_ids == ["000002"]
    assert isinstance(KittiObject(root), LabelledDataset)


def test_testing_frames_have_no_labels(tmp_path: Path):
    data = KittiObject(write_object_data(tmp_path), "test")
    assert data.keys[0] == "kitti_object/testing/000000"
    assert len(data[0].boxes) == 0 and len(data[0].sweep.xyz) > 0
    with pytest.raises(FileNotFoundError, match="testing frame"):
        data.objects(0)


def test_points_outside_the_camera_are_cut(tmp_path: Path):
    root = write_object_data(tmp_path)
    cropped, full = KittiObject(root), KittiObject(root, camera_crop=False, scans="velodyne")
    calibration = full.calibration(0)
    inside = calibration.in_image(full[0].sweep.xyz, (1242, 375))

    assert 0 < int(inside.sum()) < len(inside)
    assert torch.equal(cropped[0].sweep.xyz, full[0].sweep.xyz[inside])
    assert torch.equal(cropped[0].sweep.features, full[0].sweep.features[inside])
    assert torch.equal(cropped[0].boxes.center, full[0].boxes.center)


def test_size_of_the_image_file_wins(tmp_path: Path):
    root = write_object_data(tmp_path)
    image = root / "training" / "image_2" / "000000.png"
    image.parent.mkdir()
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 600, 375))
    data = KittiObject(root)
    assert data.image_size(0) == (600, 375) and data.image_size(1) == (1242, 375)
    uv, _ = data.calibration(0).project(data[0].sweep.xyz)
    assert float(uv[:, 0].max()) < 600
    image.write_bytes(b"JFIF")
    with pytest.raises(ValueError, match="not a PNG"):
        read_png_size(image)


def test_missing_frames_are_an_error_unless_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = write_object_data(tmp_path)
    (root / "training" / "label_2" / "000001.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 frames.*000001.*allow_missing"):
        KittiObject(root)
    data = KittiObject(root, allow_missing=True)
    assert data.frame_ids == ["000000"] and data.missing == ("000001",)
    assert "1 of 2 frames are there" in caplog.text
    assert data.provenance()["num_missing"] == 1
    (root / "training" / "velodyne" / "000000.bin").unlink()
    with pytest.raises(FileNotFoundError, match="no frame of split"):
        KittiObject(root, allow_missing=True)


def test_reduced_scan_stands_in_for_a_full_one(tmp_path: Path):
    root = write_object_data(tmp_path)
    full = KittiObject(root)[0].sweep
    scan = root / "training" / "velodyne" / "000000.bin"
    write_bin(root / "training" / "velodyne_reduced" / "000000.bin", torch.cat([full.xyz, full.features], 1).numpy())
    scan.unlink()
    assert torch.equal(KittiObject(root)[0].sweep.xyz, full.xyz)
    with pytest.raises(FileNotFoundError, match="000000"):
        KittiObject(root, scans="velodyne")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "validation"}, "no list for split 'validation'"),
        ({"root": "nowhere"}, r"nowhere does not exist.*dataset\.root"),
        ({"root": "ImageSets"}, "training does not exist"),
        ({"root": "ImageSets/train.txt"}, "is a file, not a folder"),
    ],
)
def test_wrong_paths_say_what_to_do(tmp_path: Path, settings: dict, message: str):
    root = write_object_data(tmp_path)
    arguments = {**settings, "root": root / settings.get("root", "")}
    with pytest.raises(FileNotFoundError, match=message):
        KittiObject(**arguments)


def test_contradicting_settings(tmp_path: Path):
    root = write_object_data(tmp_path)
    with pytest.raises(ValueError, match="would mix"):
        KittiObject(root, camera_crop=False)
    with pytest.raises(ValueError, match="scans must be one of"):
        KittiObject(root, scans="velo")
    with pytest.raises(ValueError, match="each class once"):
        KittiObject(root, class_names=["Car", "Car"])


def test_corrupt_scan_is_a_fault(tmp_path: Path):
    root = write_object_data(tmp_path)
    path = root / "training" / "velodyne" / "000001.bin"
    path.write_bytes(path.read_bytes()[:-3])
    data = KittiObject(root)
    assert len(data[0].boxes) == 1
    with pytest.raises(FaultySweepError, match=r"000001\.bin"):
        data[1]


def test_hash_notices_other_files(tmp_path: Path):
    root = write_object_data(tmp_path)
    before = KittiObject(root).provenance()
    assert KittiObject(root).provenance() == before
    write_bin(root / "training" / "velodyne" / "000001.bin", cloud(3, 10))
    assert KittiObject(root).provenance()["hash"] != before["hash"]
    assert KittiObject(root, "val").provenance()["hash"] != before["hash"]


def test_sample_reduced_scans_are_our_crop_of_the_full_ones(samples: Path):
    folder = samples / "kitti_object" / "training"
    both = sorted({p.name for p in folder.glob("velodyne/*.bin")} & {p.name for p in folder.glob("velodyne_reduced/*")})
    if not both:
        pytest.skip(f"no frame in both forms under {folder}")
    for name in both:
        xyz, features = PointFormat().read(folder / "velodyne" / name)
        calibration = read_calibration(folder / "calib" / f"{Path(name).stem}.txt")
        inside = calibration.in_image(xyz, calibration.image_size())
        reduced_xyz, reduced_features = PointFormat().read(folder / "velodyne_reduced" / name)
        assert torch.equal(xyz[inside], reduced_xyz), name
        assert torch.equal(features[inside], reduced_features), name


def test_sample_boxes_hold_the_points_of_their_objects(samples: Path):
    if not (samples / "kitti_object" / "training").is_dir():
        pytest.skip(f"no kitti_object under {samples}")
    data = KittiObject(samples / "kitti_object", "all", class_names=("Car", "Van", "Pedestrian", "Cyclist"))
    counts, shells = [], []
    for index in range(len(data)):
        sample, objects = data[index], data.objects(index)
        rows = [i for i, name in enumerate(objects.types) if name in data.class_names]
        seen = torch.from_numpy((objects.occluded[rows] == 0) & (objects.truncated[rows] < 0.3))
        near = seen & (sample.boxes.center.norm(dim=1) < 30)
        # Above the ground, a shell of 0.3 m around a box that sits right is almost empty.
        floor = (sample.boxes.center - sample.boxes.size / 2)[:, 2:]
        high = sample.sweep.xyz[None, :, 2] > floor + 0.4
        inside = sample.boxes.contains(sample.sweep.xyz)
        shell = sample.boxes.contains(sample.sweep.xyz, margin=0.3) & ~inside & high
        counts += inside.sum(1)[near].tolist()
        shells += (shell.sum(1)[near] / (inside & high).sum(1)[near].clamp(min=1)).tolist()
    assert len(counts) > 5
    # One car of 002155 has no return at all, though it stands in the open.
    assert np.quantile(counts, 0.1) >= 30 and np.median(counts) > 100, counts
    assert np.median(shells) < 0.1, shells


def test_sample_missing_frames_of_the_official_split(samples: Path):
    root = samples / "kitti_object"
    if not (root / "ImageSets_official" / "train.txt").is_file():
        pytest.skip(f"no official split under {root}")
    with pytest.raises(FileNotFoundError, match="of 3712 frames"):
        KittiObject(root, "train")
    train = KittiObject(root, "train", allow_missing=True)
    val = KittiObject(root, "val", allow_missing=True)
    assert len(train) + len(train.missing) == 3712 and len(val) + len(val.missing) == 3769
    assert set(train.keys).isdisjoint(val.keys)
    assert {*train.keys, *val.keys} == {*KittiObject(root, "all").keys}
