"""Detection frames and annotated raw frames as one dataset."""

from pathlib import Path

import pytest
import torch

from equilidar.data.kitti_joined import JoinedKittiFrames
from equilidar.data.kitti_object import KittiObject
from equilidar.data.kitti_raw_labelled import KittiRawLabelled
from tests.data.fake_kitti import CAR, write_calibration, write_labels, write_object_data
from tests.data.test_pairs import write_raw

DRIVE = "2011_09_26_drive_0001_sync"


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    write_raw(tmp_path / "raw", DRIVE, [0, 1, 2])
    for part in ("label_2", "calib"):
        path = tmp_path / "raw" / DRIVE[:10] / DRIVE / part / f"{1:010d}.txt"
        write_labels(path, [CAR]) if part == "label_2" else write_calibration(path)
    return write_object_data(tmp_path / "object"), tmp_path / "raw"


def test_frames_of_both_parts_in_order(roots: tuple[Path, Path]):
    parts = {"object": KittiObject(roots[0], "all"), "raw": KittiRawLabelled(roots[1])}
    joined = JoinedKittiFrames(parts)
    assert joined.keys == [*parts["object"].keys, f"kitti_raw/{DRIVE}/0000000001"]
    assert torch.equal(joined[3].sweep.xyz, parts["raw"][0].sweep.xyz)
    assert joined.objects(3).types == ("Car",)
    assert joined[3].sweep.timestamp == pytest.approx(parts["raw"][0].sweep.timestamp)
    assert joined.provenance()["parts"]["raw"]["num_samples"] == 1


def test_parts_must_agree_and_be_apart(roots: tuple[Path, Path]):
    whole = KittiObject(roots[0], "all")
    with pytest.raises(ValueError, match="share frames"):
        JoinedKittiFrames({"a": whole, "b": KittiObject(roots[0], "train")})
    with pytest.raises(ValueError, match="must agree"):
        JoinedKittiFrames({"a": whole, "b": KittiRawLabelled(roots[1], class_names=["Car"])})
    with pytest.raises(ValueError, match="empty"):
        JoinedKittiFrames({})
