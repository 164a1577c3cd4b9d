"""Feather files, folders of logs, and what is wrong with broken ones."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from equilidar.evaluation.argoverse2_files import read_annotations, read_detections
from equilidar.formats.argoverse2_annotations import CATEGORIES
from tests.evaluation.fake_sets import make_detections, make_truth, write_argoverse2


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    truth = make_truth()
    return write_argoverse2(tmp_path, truth, make_detections(truth))


def test_rows_keep_their_number_and_sweeps_are_sorted(files: tuple[Path, Path]) -> None:
    table = pyarrow.feather.read_table(files[0])
    order = np.random.default_rng(0).permutation(table.num_rows)
    pyarrow.feather.write_feather(table.take(pa.array(order)), files[0])
    boxes = read_annotations(files[0])
    assert boxes.sweeps == (("log-a", 1000), ("log-a", 1001), ("log-b", 1000))
    assert boxes.row.tolist() == list(range(24))
    shuffled = [table["tx_m"][int(row)].as_py() for row in order]
    assert boxes.center[:, 0].tolist() == shuffled
    assert CATEGORIES[boxes.label[0]] == table["category"][int(order[0])].as_py()


def test_the_folder_names_the_log_where_the_file_does_not(files: tuple[Path, Path], tmp_path: Path) -> None:
    table = pyarrow.feather.read_table(files[0])
    for log in ("log-a", "log-b"):
        own = table.filter(pa.compute.equal(table["log_id"], log))
        (tmp_path / "sensor" / log).mkdir(parents=True)
        pyarrow.feather.write_feather(own.drop_columns(["log_id"]), tmp_path / "sensor" / log / "annotations.feather")
    whole, joined = read_annotations(files[0]), read_annotations(tmp_path / "sensor")
    assert joined.sweeps == whole.sweeps and len(joined) == len(whole)
    alone = read_annotations(tmp_path / "sensor" / "log-b")
    assert alone.sweeps == (("log-b", 1000),)


def test_detections_may_be_split_over_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    table = pyarrow.feather.read_table(files[1])
    (tmp_path / "parts").mkdir()
    for index, part in enumerate((table.slice(0, 10), table.slice(10))):
        pyarrow.feather.write_feather(part, tmp_path / "parts" / f"{index}.feather")
    whole, joined = read_detections(files[1]), read_detections(tmp_path / "parts")
    assert joined.sweeps == whole.sweeps
    np.testing.assert_array_equal(joined.score, whole.score)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("qw", [0.0] * 24, None),
        ("timestamp_ns", [None] * 24, "no log_id or no timestamp_ns"),
        ("score", ["high"] * 24, "column score holds string, expected numbers"),
        ("category", [None] * 24, "unknown class None"),
    ],
)
def test_a_faulty_column_is_named(files: tuple[Path, Path], column: str, value: list, message: str | None) -> None:
    table = pyarrow.feather.read_table(files[1])
    kind = pa.int64() if column == "timestamp_ns" else pa.string() if value[0] is None else None
    table = table.set_column(table.column_names.index(column), column, pa.array(value, kind))
    if message is None:
        table = table.set_column(table.column_names.index("qz"), "qz", pa.array(value))
    pyarrow.feather.write_feather(table, files[1])
    with pytest.raises(ValueError, match=message or "row 0: the quaternion is zero"):
        read_detections(files[1])


def test_no_feather_file(tmp_path: Path) -> None:
    (tmp_path / "text.feather").write_text("no")
    with pytest.raises(ValueError, match="is no feather file"):
        read_detections(tmp_path / "text.feather")
    with pytest.raises(FileNotFoundError, match=r"nor annotations.feather in it"):
        read_annotations(tmp_path / "none")
