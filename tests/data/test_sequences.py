"""Which sequence a sweep is of."""

from pathlib import Path

import pytest

from equilidar.data.sequences import sequence_of, sequences_of

KITTI = [f"kitti_object/training/{i:06d}" for i in range(4)]
LINES = ["2011_09_26 2011_09_26_drive_0005_sync 0000000007", "2011_09_26 2011_09_26_drive_0051_sync 0000000001"]


def test_by_key():
    assert sequence_of("simulator-1000/0003/0016") == "0003"
    assert sequence_of("log/day/morning/7") == "day/morning"
    assert sequence_of("fake/3") == ""


def test_keys_that_do_not_tell_are_an_error():
    with pytest.raises(ValueError, match=r"all 4 sweeps are of one sequence.*labels\.sequences=FILE"):
        sequences_of(KITTI)


def test_kitti_devkit_mapping(tmp_path: Path):
    (tmp_path / "train_mapping.txt").write_text("\n".join(LINES))
    (tmp_path / "train_rand.txt").write_text("2,1,1,2")
    first, second = "2011_09_26_drive_0005", "2011_09_26_drive_0051"
    assert list(sequences_of(KITTI, tmp_path).values()) == [second, first, first, second]
    with pytest.raises(ValueError, match="no entry for frame 000009"):
        sequences_of(["kitti_object/training/000009"], tmp_path)


def test_a_table(tmp_path: Path):
    path = tmp_path / "table.txt"
    path.write_text("000000 a\n\n000001 a\nkitti_object/training/000002 b\n000003 b\n")
    assert list(sequences_of(KITTI, path).values()) == ["a", "a", "b", "b"]
    path.write_text("000000 a\n000001 b\n")
    with pytest.raises(ValueError, match="no line for kitti_object/training/000002"):
        sequences_of(KITTI, path)
    path.write_text("000000 a b\n")
    with pytest.raises(ValueError, match="line 1: 3 columns"):
        sequences_of(KITTI, path)
    with pytest.raises(FileNotFoundError, match=r"labels\.sequences: no file or folder"):
        sequences_of(KITTI, tmp_path / "none")
