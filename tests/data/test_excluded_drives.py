"""Recordings that hold validation frames stay out of pretraining."""

import json
from pathlib import Path

import pytest

from equilidar.data.excluded_drives import ValidationGuard, read_devkit_mapping
from equilidar.data.kitti_drives import (
    DETECTION_FRAMES,
    ODOMETRY_DRIVES,
    TRAINING_DRIVES,
    VALIDATION_DRIVES,
    drive_of,
    odometry_recording,
)
from equilidar.data.kitti_odometry import KittiOdometry
from equilidar.data.kitti_raw import KittiRaw
from tests.data.fake_kitti import write_odometry
from tests.data.test_pairs import write_raw

A, B, C = "2011_09_26_drive_0117", "2011_09_28_drive_0002", "2011_09_26_drive_0052"


@pytest.fixture
def devkit(tmp_path: Path) -> dict[str, Path]:
    """Detection frames 0 to 3 are lines 4, 1, 3, 2: frames 0 and 2 are of drive B."""
    folder = tmp_path / "mapping"
    folder.mkdir()
    drives = [A, A, B, B]
    (folder / "train_mapping.txt").write_text("".join(f"{d[:10]} {d}_sync {i:010d}\n" for i, d in enumerate(drives)))
    (folder / "train_rand.txt").write_text("4,1,3,2\n")
    (tmp_path / "val.txt").write_text("000000\n000002\n")
    return {"devkit_mapping": folder, "validation_list": tmp_path / "val.txt"}


def test_mapping_of_the_development_kit(devkit: dict[str, Path]):
    assert read_devkit_mapping(devkit["devkit_mapping"], devkit["validation_list"]) == {B}
    devkit["validation_list"].write_text("000001\n000003")
    assert read_devkit_mapping(devkit["devkit_mapping"], devkit["validation_list"]) == {A}
    devkit["validation_list"].write_text("000009")
    with pytest.raises(ValueError, match="no entry for frame 000009"):
        read_devkit_mapping(devkit["devkit_mapping"], devkit["validation_list"])
    with pytest.raises(FileNotFoundError, match="train_rand"):
        (devkit["devkit_mapping"] / "train_rand.txt").unlink()
        read_devkit_mapping(devkit["devkit_mapping"], devkit["validation_list"])


def test_raw_drives_with_validation_frames_are_left_out(tmp_path: Path, devkit: dict[str, Path]):
    for drive in (A, B):
        write_raw(tmp_path / "raw", f"{drive}_sync", [0, 1])
    data = KittiRaw(tmp_path / "raw", **devkit)
    assert {key.split("/")[1] for key in data.keys} == {f"{A}_sync"}
    assert data.provenance()["left_out"] == {f"{B}_sync": f"{B} holds validation frames"}
    assert data.provenance()["allow_validation_drives"] is False


def test_an_unknown_drive_counts_as_one_that_may_hold_them(tmp_path: Path):
    write_raw(tmp_path, f"{A}_sync", [0, 1])
    with pytest.raises(ValueError, match=r"is not known.*allow_validation_drives=true"):
        KittiRaw(tmp_path)
    assert len(KittiRaw(tmp_path, allow_validation_drives=True)) == 1
    assert KittiRaw(tmp_path, allow_validation_drives=True).provenance()["allow_validation_drives"] is True


def test_odometry_sequences_go_by_their_drives(tmp_path: Path, devkit: dict[str, Path]):
    for sequence in ("03", "04", "11", "77"):
        write_odometry(tmp_path / "odometry", sequence)
    (devkit["devkit_mapping"] / "train_mapping.txt").write_text(f"d {ODOMETRY_DRIVES['04']}_sync 0000000003\n" * 4)
    data = KittiOdometry(tmp_path / "odometry", **devkit)
    assert {key.split("/")[1] for key in data.keys} == {"03", "11"}
    assert set(data.choice.left_out) == {"04", "77"}
    assert "not known" in data.choice.left_out["77"]


def test_recordings_without_detection_frames_are_free_without_the_mapping(tmp_path: Path):
    sequences = [f"{number:02d}" for number in range(22)]
    choice = ValidationGuard().choose({name: odometry_recording(name) for name in sequences})
    assert list(choice.used) == sequences and not choice.left_out
    others = ["2011_09_26_drive_0067", "2011_09_30_drive_0028", "2013_05_28_drive_0000"]
    assert list(ValidationGuard().choose({name: name for name in others}).used) == others
    write_odometry(tmp_path, "05")
    assert KittiOdometry(tmp_path).provenance()["used"] == {"05": "2011_09_30_drive_0018"}


def test_every_labelled_detection_frame_is_accounted_for():
    """The evidence that other recordings are free: 7481 frames, all of them in these drives."""
    assert sum(DETECTION_FRAMES.values()) == 7481
    assert len(DETECTION_FRAMES) == 141
    assert not set(DETECTION_FRAMES) & set(ODOMETRY_DRIVES.values())


def test_drives_of_the_training_split_are_free(tmp_path: Path):
    """What is known of the split fits its size: 3712 training and 3769 validation frames."""
    assert not TRAINING_DRIVES & VALIDATION_DRIVES
    assert len(TRAINING_DRIVES & set(DETECTION_FRAMES)) == 25 and len(VALIDATION_DRIVES & set(DETECTION_FRAMES)) == 13
    assert sum(DETECTION_FRAMES[drive] for drive in TRAINING_DRIVES) <= 3712
    assert sum(DETECTION_FRAMES[drive] for drive in VALIDATION_DRIVES) <= 3769
    training = sorted(TRAINING_DRIVES)
    assert list(ValidationGuard().choose({name: name for name in training}).used) == training
    for drive in (training[0], A, C):
        write_raw(tmp_path, f"{drive}_sync", [0, 1])
    assert set(KittiRaw(tmp_path).provenance()["used"]) == {f"{training[0]}_sync"}


def test_the_list_of_drives_has_a_hash(tmp_path: Path, devkit: dict[str, Path]):
    drives = {f"{drive}_sync": drive for drive in (A, B)}
    left, all_ = ValidationGuard(**devkit).choose(drives), ValidationGuard(allow=True).choose(drives)
    assert left.provenance() == ValidationGuard(**devkit).choose(drives).provenance()
    assert left.provenance()["drive_list_hash"] != all_.provenance()["drive_list_hash"]
    assert left.provenance()["used"] == {f"{A}_sync": A}


def test_known_drive_says_which_frames():
    choose = ValidationGuard(allow=False).choose
    with pytest.raises(ValueError, match="4 validation frames"):
        choose({"one": C})
    with pytest.raises(ValueError, match=r"198 detection frames; whether .* is not known"):
        choose({"one": A})
    assert list(ValidationGuard(allow=True).choose({"one": C}).used) == ["one"]
    with pytest.raises(ValueError, match="together"):
        ValidationGuard(devkit_mapping=Path("mapping"))


def test_names_of_drives():
    assert drive_of("2011_09_26_drive_0052_sync") == drive_of("2011_09_26_drive_0052_extract") == C
    assert drive_of("0052") is None


def test_sample_drives_with_validation_frames_are_refused(samples: Path):
    """What the recordings' own mapping says of validation frames, the guard must know or suspect.

    And no drive holds more labelled frames than the table says.
    """
    mappings = sorted(samples.glob("kitti_raw/*/frame_to_kitti_object_training_id.json"))
    lists = sorted(samples.glob("kitti_object/ImageSets*/val.txt"))
    if not mappings or not lists:
        pytest.skip(f"no mapping or no validation list under {samples}")
    validation = set(lists[0].read_text().split())
    found = 0
    for path in mappings:
        labelled = [frame for frame in json.loads(path.read_text()).values() if frame is not None]
        assert len(labelled) <= DETECTION_FRAMES[drive_of(path.parent.name) or ""]
        frames = [frame for frame in labelled if frame in validation]
        assert not frames or len(frames) == len(labelled), f"{path}: a drive of both splits"
        assert drive_of(path.parent.name) not in (TRAINING_DRIVES if frames else VALIDATION_DRIVES)
        if frames:
            found += 1
            with pytest.raises(ValueError, match="detection validation split"):
                ValidationGuard().choose({path.parent.name: drive_of(path.parent.name)})
    if not found:
        pytest.skip("no drive of the recordings holds validation frames")
