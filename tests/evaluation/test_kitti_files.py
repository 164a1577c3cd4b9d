"""Strict reading, with messages that name file, line and what is wrong; writing and reading back."""

from pathlib import Path

import numpy as np
import pytest

from equilidar.evaluation.kitti import KittiEvaluation, evaluate_folders
from equilidar.evaluation.kitti_files import (
    KITTI_CLASSES,
    KittiTable,
    list_frames,
    read_labels,
    read_results,
    write_files,
)

LABEL = "Car 0.10 1 -1.57 10.00 20.00 110.00 80.00 1.50 1.60 3.90 2.00 1.70 15.00 -1.44"
NO_BOX = "DontCare -1 -1 -10 1.00 2.00 30.00 40.00 -1 -1 -1 -1000 -1000 -1000 -10"


def _write(folder: Path, frame: str, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{frame}.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_reads_rows_of_all_frames_in_order(tmp_path: Path) -> None:
    _write(tmp_path, "000002", LABEL, "", NO_BOX)
    _write(tmp_path, "000001")
    _write(tmp_path, "000007", LABEL.replace("Car", "pedestrian"))
    table = read_labels(tmp_path)
    assert table.frames == ("000001", "000002", "000007")
    assert table.offsets.tolist() == [0, 0, 2, 3]
    assert [KITTI_CLASSES[kind] for kind in table.kind] == ["car", "dontcare", "pedestrian"]
    assert table.truncated[0] == 0.1
    assert table.occluded[0] == 1
    assert table.alpha[0] == -1.57
    assert table.image_box[0].tolist() == [10, 20, 110, 80]
    assert table.location[0].tolist() == [2, 1.7, 15]
    assert np.isnan(table.score).all()
    # x right, z forward, y down from the bottom face; length, width, height; the other sense of turning.
    np.testing.assert_allclose(table.upright_boxes()[0], [2, 15, 1.5 / 2 - 1.7, 3.9, 1.6, 1.5, 1.44])


def test_scores_are_the_sixteenth_column(tmp_path: Path) -> None:
    _write(tmp_path, "000000", LABEL + " 0.25", LABEL + " -3.5")
    assert read_results(tmp_path).score.tolist() == [0.25, -3.5]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (LABEL + " 0.5", r"000003\.txt:2: 16 columns, a label has 15"),
        (LABEL.rsplit(" ", 1)[0], r"000003\.txt:2: 14 columns, a label has 15"),
        (LABEL.replace("Car", "Lorry"), r"000003\.txt:2: unknown class 'Lorry', known are Car, Van"),
        (LABEL.replace("-1.57", "nan"), r"000003\.txt:2: column 4, 'nan', is no finite number"),
        (LABEL.replace("15.00", "inf"), r"000003\.txt:2: column 14, 'inf', is no finite number"),
        (LABEL.replace("1.60", "1,60"), r"000003\.txt:2: column 10, '1,60', is no number"),
        (LABEL.replace("1.60", "-1.60"), r"000003\.txt:2: negative size 1.50 -1.60 3.90"),
        (LABEL.replace("1.50 1.60 3.90", "-1 -1 -1"), r"000003\.txt:2: negative size -1 -1 -1"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    _write(tmp_path, "000003", LABEL, line)
    with pytest.raises(ValueError, match=message):
        read_labels(tmp_path)


def test_a_result_without_score_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path, "000003", LABEL)
    with pytest.raises(ValueError, match=r"000003\.txt:1: 15 columns, a result \(the last one is the score\) has 16"):
        read_results(tmp_path)


def test_a_file_of_bytes_is_an_error_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "000000.txt").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r"000000\.txt:1"):
        read_labels(tmp_path)


def test_missing_folders_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no folder {tmp_path}/nowhere"):
        list_frames(tmp_path / "nowhere")
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no .txt file in {tmp_path}.*did you mean {tmp_path}/data"):
        list_frames(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no file .*000009\.txt"):
        read_labels(tmp_path, ["000009"])


def test_written_files_are_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([np.zeros((5, 2)), rng.uniform(0.1, 50, (5, 12)), rng.random((5, 1))], 1)
    values[:, 14] = np.array(values[:, 14], dtype=np.float32)
    table = KittiTable(("a", "b", "c"), np.array([0, 2, 2, 5]), np.array([0, 1, 3, 5, 8]), values)
    write_files(tmp_path, table)
    again = read_results(tmp_path)
    assert (again.frames, again.offsets.tolist(), again.kind.tolist()) == (table.frames, [0, 2, 2, 5], [0, 1, 3, 5, 8])
    np.testing.assert_allclose(again.values, table.values, atol=5.1e-5)
    assert (np.float32(again.score) == np.float32(table.score)).all(), "rounded scores would tie"


def test_tables_are_joined_frame_by_frame() -> None:
    def one(name: str, num: int) -> KittiTable:
        return KittiTable((name,), np.array([0, num]), np.full(num, num), np.full((num, 15), float(num)))

    joined = KittiTable.concatenate([one("a", 2), one("b", 0), one("c", 1)])
    assert joined.frames == ("a", "b", "c")
    assert joined.offsets.tolist() == [0, 2, 2, 3]
    assert joined.kind.tolist() == [2, 2, 1]
    assert len(KittiTable.concatenate([])) == 0


class TestFolders:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        for frame in ("000000", "000001", "000002"):
            _write(tmp_path / "gt", frame, LABEL)
            _write(tmp_path / "det", frame, LABEL + " 0.5")
        return tmp_path / "gt", tmp_path / "det"

    def test_a_class_that_was_never_detected_is_none(self, folders: tuple[Path, Path]) -> None:
        result = evaluate_folders(*folders)
        assert result["pedestrian"] == {"bbox": None, "aos": None, "bev": None, "3d": None}
        # Three objects give three thresholds: 2 of 40 positions past the first.
        assert result["car"]["3d"]["AP_R40"] == pytest.approx([0, 5, 5])

    def test_detections_without_a_place_in_space_have_no_3d_figure(self, folders: tuple[Path, Path]) -> None:
        flat = LABEL.replace("1.50 1.60 3.90 2.00 1.70 15.00 -1.44", "-1 -1 -1 -1000 -1000 -1000 -10") + " 0.5"
        for frame in ("000000", "000001", "000002"):
            _write(folders[1], frame, flat)
        result = evaluate_folders(*folders)["car"]
        assert result["bev"] is None
        assert result["3d"] is None
        assert result["bbox"]["AP_R40"] == pytest.approx([0, 5, 5])
        assert result["aos"] == result["bbox"]

    def test_one_unknown_alpha_switches_aos_off(self, folders: tuple[Path, Path]) -> None:
        _write(folders[1], "000001", LABEL.replace("-1.57", "-10") + " 0.5")
        assert evaluate_folders(*folders)["car"]["aos"] is None

    def test_loose_overlaps_stand_beside_the_official_ones(self, folders: tuple[Path, Path]) -> None:
        strict, both = evaluate_folders(*folders), evaluate_folders(*folders, loose=True)
        assert both["car"].keys() - strict["car"].keys() == {"bev@0.5", "3d@0.5"}
        assert all(both["car"][metric] == strict["car"][metric] for metric in strict["car"])

    def test_a_missing_detection_file_is_an_error_an_empty_one_is_not(self, folders: tuple[Path, Path]) -> None:
        (folders[1] / "000001.txt").unlink()
        with pytest.raises(ValueError, match=r"no file for 1 frame \(000001\).*empty file"):
            evaluate_folders(*folders)
        _write(folders[1], "000001")
        assert evaluate_folders(*folders)["car"]["3d"]["AP_R40"] == pytest.approx([0, 2.5, 2.5])

    def test_detections_for_an_unlabelled_frame_are_an_error(self, folders: tuple[Path, Path]) -> None:
        _write(folders[1], "000009")
        with pytest.raises(ValueError, match=r"detections for 1 frame \(000009\) without ground truth"):
            evaluate_folders(*folders)

    def test_only_the_frames_of_a_split_are_evaluated(self, folders: tuple[Path, Path], tmp_path: Path) -> None:
        split = tmp_path / "val.txt"
        split.write_text("000002\n000000\n")
        with pytest.raises(ValueError, match=r"1 frame \(000001\) without being named in .*val.txt"):
            evaluate_folders(*folders, frames=split)
        (folders[1] / "000001.txt").unlink()
        assert evaluate_folders(*folders, frames=split)["car"]["3d"]["AP_R40"] == pytest.approx([0, 2.5, 2.5])
        split.write_text("000002\n000005\n")
        with pytest.raises(ValueError, match=r"val.txt names 1 frame \(000005\) without ground truth"):
            evaluate_folders(*folders, frames=split)
        split.write_text("000002\n000002\n")
        with pytest.raises(ValueError, match=r"val.txt names frame 000002 twice"):
            evaluate_folders(*folders, frames=split)

    def test_figures_hold_recall_and_numbers_of_objects(self, folders: tuple[Path, Path]) -> None:
        _write(folders[1], "000001")
        frames = list_frames(folders[0])
        figures = KittiEvaluation(read_labels(folders[0], frames), read_results(folders[1], frames)).figures()["car"]
        assert figures["num_ground_truth"] == [0, 3, 3]
        assert figures["3d"]["recall"] == pytest.approx([0, 200 / 3, 200 / 3])
        official = evaluate_folders(*folders, loose=True)["car"]
        for metric, values in official.items():
            assert {key: figures[metric][key] for key in values} == values
