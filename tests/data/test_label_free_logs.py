"""Readers of KITTI-360, SemanticKITTI, Argoverse 2, ONCE and own logs: what annotations hold changes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from equilidar.data.argoverse2 import Argoverse2
from equilidar.data.argoverse2_flow import Argoverse2Flow
from equilidar.data.argoverse2_labelled import Argoverse2Labelled
from equilidar.data.kitti360 import Kitti360
from equilidar.data.once import Once
from equilidar.data.once_labelled import OnceLabelled
from equilidar.data.own_log import LogPairs
from equilidar.data.recordings import RecordedPairs
from equilidar.data.semantickitti import SemanticKitti
from tests.data.fake_argoverse2 import LOG, write_simulated_log
from tests.data.fake_kitti import write_odometry
from tests.data.fake_kitti360 import DRIVE, write_kitti360
from tests.data.fake_logs import START, STEP, driven, write_log
from tests.data.fake_once import SEQUENCE, write_json, write_once
from tests.data.test_label_free import opened_paths, stream  # noqa: F401 (a fixture)

Built = tuple[Callable[[], RecordedPairs], list[Path]]


def make_kitti360(root: Path) -> Built:
    write_kitti360(root)
    boxes = root / "data_3d_bboxes" / "train" / f"{DRIVE}.xml"
    boxes.parent.mkdir(parents=True)
    boxes.write_text("<opencv_storage/>")
    points = root / "data_3d_semantics" / "train" / DRIVE / "static" / "0000000001_0000000005.ply"
    points.parent.mkdir(parents=True)
    points.write_bytes(b"ply\n")
    return lambda: Kitti360(root), [boxes, points]


def make_semantickitti(root: Path) -> Built:
    write_odometry(root, "04")
    labels = [root / "sequences" / "04" / "labels" / f"{i:06d}.label" for i in range(3)]
    labels[0].parent.mkdir()
    for path in labels:
        path.write_bytes(b"\x0a\x00\x01\x00" * 300)
    return lambda: SemanticKitti(root), labels


def make_argoverse2(root: Path) -> Built:
    write_simulated_log(root)
    return lambda: Argoverse2(root), [root / LOG / "annotations.feather", *(root / LOG / "flow").iterdir()]


@pytest.mark.parametrize("make", [make_kitti360, make_semantickitti, make_argoverse2])
def test_poisoned_and_removed_annotations_change_nothing(
    tmp_path: Path,
    make: Callable[[Path], Built],
    opened_paths: list[str],  # noqa: F811
):
    build, annotations = make(tmp_path)
    opened_paths.clear()
    expected = stream(build())
    names = {str(path) for path in annotations}
    assert len(opened_paths) > 3 and not names & set(opened_paths)
    for path in annotations:
        path.write_bytes(b"\xff\x00poison" * 7)
    assert stream(build()) == expected
    for folder in {path.parent for path in annotations if path.parent != tmp_path / LOG}:
        shutil.rmtree(folder)
    for path in annotations:
        path.unlink(missing_ok=True)
    assert stream(build()) == expected and len(expected)


def test_the_hook_sees_argoverse_annotations_being_read(
    tmp_path: Path,
    opened_paths: list[str],  # noqa: F811
):
    make_argoverse2(tmp_path)
    opened_paths.clear()
    Argoverse2Labelled(tmp_path)[0]
    assert any(path.endswith("annotations.feather") for path in opened_paths)
    opened_paths.clear()
    Argoverse2Flow(tmp_path)[0]
    assert any("/flow/" in path for path in opened_paths)


def test_annotations_beside_once_s_poses_are_dropped_while_parsing(tmp_path: Path):
    content = write_once(tmp_path)
    expected = stream(Once(tmp_path))
    assert len(OnceLabelled(tmp_path, splits=["raw_small"])[0].boxes)
    for frame in content["frames"]:
        frame["annos"] = {"names": "poison", "boxes_3d": [[1e9]], "pose": [0] * 7, "frame_id": "poison"}
    write_json(tmp_path, content)
    assert stream(Once(tmp_path)) == expected
    with pytest.raises(ValueError, match="as many names as boxes_3d"):
        OnceLabelled(tmp_path, splits=["raw_small"])
    for frame in content["frames"]:
        del frame["annos"]
    write_json(tmp_path, content)
    assert stream(Once(tmp_path)) == expected and len(expected) == 3
    assert "annos" not in json.dumps(content) and SEQUENCE in expected[0][0]


@pytest.mark.parametrize("kind", ["bag", "sqlite3", "mcap"])
def test_other_topics_of_a_log_change_nothing(tmp_path: Path, kind: str):
    def read(name: str, texts: dict[str, list[tuple[int, str]]]) -> list:
        contents = driven(3)
        contents.texts = texts
        path = write_log(tmp_path / name / "drive", contents, kind)
        return stream(LogPairs(path, cache_dir=tmp_path / "cache"))

    for name in ("with", "other", "without"):
        (tmp_path / name).mkdir()
    with_boxes = read("with", {"/boxes": [(START + STEP * i, "car 1 2 3") for i in range(3)]})
    assert with_boxes == read("other", {"/boxes": [(START + STEP, "poison" * 50)]}) == read("without", {})
    assert len(with_boxes) == 2
