"""nuScenes's tables: read row by row, split by scene, broken in every way."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils import splits

from equilidar.data.nuscenes import NuScenes
from equilidar.data.nuscenes_tables import read_table, rows
from equilidar.formats import json_stream
from equilidar.formats.nuscenes_annotations import CATEGORIES
from equilidar.formats.nuscenes_splits import split_scenes
from tests.data.fake_nuscenes import VERSION, Release, edit, token, write_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("nuscenes"))


def pairs(release: Release, split: str = "all", **settings: Any) -> NuScenes:
    return NuScenes(release.root, VERSION, split, **settings)


def test_splits_are_the_devkit_s():
    for name in ("train", "val", "test", "mini_train", "mini_val"):
        assert split_scenes(name) == sorted(getattr(splits, name))
    assert {c: name for name, cs in CATEGORIES.items() for c in cs} == {
        c: category_to_detection_name(c) for cs in CATEGORIES.values() for c in cs
    }


def test_scenes_by_split_file_and_name(release: Release, tmp_path: Path):
    assert pairs(release, "mini_val").scenes == ["scene-0103"]
    (tmp_path / "mine.txt").write_text("scene-0061\n")
    assert pairs(release, tmp_path / "mine.txt").scenes == ["scene-0061"]
    for split, message in (
        ("test", "no scene of split 'test' among its 2"),
        ("nonsense", r"dataset\.split must be one of train, val"),
        (["scene-9999"], r"scene\.json: no scene scene-9999"),
        ("gone.txt", r"no list of scenes gone\.txt"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            pairs(release, split)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_tables_are_read_in_pieces(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch):
    table = [{"token": "a", "text": 'ä"]},{[', "n": [1.5, -2e3]}, {"token": "b", "deep": {"x": [{}]}}, {"token": "c"}]
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    for number, text in enumerate((json.dumps(table), json.dumps(table, indent=2), json.dumps(table) + "\n", " [ ]")):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        assert list(rows(path)) == json.loads(text)
        for cut in (len(text) // 2, len(text.rstrip()) - 1):
            path.write_text(text[:cut])
            with pytest.raises(ValueError, match=r"\.json: truncated, or no table"):
                list(rows(path))


def test_tables_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As a whole this table takes more than 10 MB."""
    monkeypatch.setattr(json_stream, "_CHUNK", 1 << 16)
    row = json.dumps({"token": "T", "filename": "f" * 60, "numbers": [0.1] * 20})
    path = tmp_path / "sample_data.json"
    path.write_text("[" + ",\n".join(row.replace("T", str(i)) for i in range(10_000)) + "]")
    tracemalloc.start()
    table = read_table(path, ("filename",), lambda row: row["token"] == "9999")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(table) == 1 and peak < 2e6


def drop_pose_of_lidar(table: list[dict]) -> None:
    table.remove(next(row for row in table if row["token"] == token("scene-0103", "LIDAR_TOP", 4)))


BROKEN_TABLES = {
    "duplicate": (edit("sample_data", lambda t: t.append(dict(t[0]))), r"sample_data\.json: token \w+ occurs twice"),
    "uncovered": (edit("ego_pose", drop_pose_of_lidar), r"ego_pose\.json: no pose for 1 of 26 sweeps.*scene-0103"),
    "column": (edit("ego_pose", lambda t: t[0].pop("rotation")), r"ego_pose\.json: row \w+ has no column 'rotation'"),
    "nan": (
        edit("ego_pose", lambda t: t[0].update(translation=[float("nan"), 0, 0])),
        r"ego_pose\.json: \w+ has no pose: \[nan",
    ),
    "quaternion": (
        edit("calibrated_sensor", lambda t: t[1].update(rotation=[0, 0, 0, 0])),
        r"calibrated_sensor\.json: \w+ has no pose: .*\[0, 0, 0, 0\]",
    ),
    "short": (
        edit("ego_pose", lambda t: t[0].update(rotation=[1, 0, 0])),
        r"ego_pose\.json: \w+ has no pose \(could not broadcast",
    ),
    "stamps": (
        edit("sample_data", lambda t: t[2].update(timestamp=t[0]["timestamp"])),
        r"sample_data\.json: two sweeps of scene-0061 have one time stamp",
    ),
    "missing": (lambda copy: (copy.root / VERSION / "sample.json").unlink(), r"no table .*sample\.json"),
    "names": (edit("scene", lambda t: t[1].update(name="scene-0061")), r"scene\.json: two scenes have the same name"),
}


@pytest.mark.parametrize("case", BROKEN_TABLES)
def test_broken_tables(release: Release, tmp_path: Path, case: str):
    copy = release.copy(tmp_path)
    change, message = BROKEN_TABLES[case]
    change(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pairs(copy)
