"""Every reader's dataset comes back from a store: pairs and, of labelled datasets, boxes."""

from pathlib import Path
from typing import Any

import pytest

from equilidar.data.packed import PackedPairs
from equilidar.data.packed_labelled import open_labelled
from tests.data.fake_argoverse2 import write_simulated_log
from tests.data.fake_kitti360 import write_kitti360
from tests.data.fake_logs import driven, write_log
from tests.data.fake_nuscenes import VERSION, write_release
from tests.data.fake_once import write_once
from tests.data.fake_waymo import write_segments
from tests.data.packed_stores import assert_same_boxes, assert_same_pairs, assert_same_sweep, pack
from tests.data.test_configs import build


def write_nuscenes(root: Path) -> dict[str, Any]:
    write_release(root, ("scene-0061",), frames=5, every=2)
    return {"version": VERSION}


def write_argoverse2(root: Path) -> dict[str, Any]:
    write_simulated_log(root)
    return {}


def write_waymo(root: Path) -> dict[str, Any]:
    write_segments(root, ("100_000",), frames=2)
    return {}


def write_360(root: Path) -> dict[str, Any]:
    write_kitti360(root)
    return {}


def write_pool(root: Path) -> dict[str, Any]:
    write_once(root, split="train")
    return {"splits": ["train"]}


def write_bag(root: Path) -> dict[str, Any]:
    write_log(root, driven(3))
    return {"cache_dir": str(root / "poses")}


WRITERS = {
    "nuscenes": write_nuscenes,
    "waymo": write_waymo,
    "argoverse2": write_argoverse2,
    "kitti360": write_360,
    "once": write_pool,
    "own_log": write_bag,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_pairs(tmp_path: Path, name: str, accumulate: int):
    settings = WRITERS[name](tmp_path / "raw")
    raw = build(name, root=str(tmp_path / "raw"), accumulate=accumulate, **settings)
    pack(raw, tmp_path / "store")
    assert_same_pairs(raw, PackedPairs(tmp_path / "store"))


def test_key_frames_of_nuscenes(tmp_path: Path):
    settings = write_nuscenes(tmp_path / "raw")
    raw = build("nuscenes", root=str(tmp_path / "raw"), targets="key_frames", **settings)
    pack(raw, tmp_path / "store")
    assert_same_pairs(raw, PackedPairs(tmp_path / "store"))


@pytest.mark.parametrize("name", ["nuscenes", "waymo", "argoverse2", "once"])
def test_labelled_sweeps(tmp_path: Path, name: str):
    settings = WRITERS[name](tmp_path / "raw")
    settings.pop("splits", None)
    raw = build(f"{name}_labelled", root=str(tmp_path / "raw"), **settings)
    pack(raw, tmp_path / "store")
    packed = open_labelled(tmp_path / "store")
    assert packed.keys == raw.keys and packed.class_names == tuple(raw.class_names)
    assert sum(len(packed[i].boxes) for i in range(len(raw))) > 0
    for i in range(len(raw)):
        assert_same_sweep(packed[i].sweep, raw[i].sweep)
        assert_same_boxes(packed[i].boxes, raw[i].boxes)


def test_flow_from_labels_is_not_packed(tmp_path: Path):
    write_argoverse2(tmp_path / "raw")
    with pytest.raises(ValueError, match="flow that comes from labels"):
        pack(build("argoverse2_flow", root=str(tmp_path / "raw")), tmp_path / "store")
