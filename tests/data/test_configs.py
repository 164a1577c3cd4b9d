"""Every dataset and label config builds what it names."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from equilidar.data.kitti_object import KittiObject
from equilidar.data.packing import Packing
from equilidar.data.protocols import LabelledDataset, PairDataset
from equilidar.data.subsets import LabelledSubset
from tests.data.fake_argoverse2 import write_simulated_log
from tests.data.fake_kitti import CAR, write_calibration, write_labels, write_object_data, write_odometry
from tests.data.fake_kitti360 import write_kitti360
from tests.data.fake_logs import driven, write_log
from tests.data.fake_nuscenes import VERSION, write_release
from tests.data.fake_once import write_once
from tests.data.fake_waymo import write_segments
from tests.data.test_pairs import write_raw

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def build(name: str, **settings):
    config = OmegaConf.merge(OmegaConf.load(CONFIGS / "dataset" / f"{name}.yaml"), settings)
    return instantiate(config, _convert_="all")


def test_datasets(tmp_path: Path):
    drive = "2011_09_26_drive_0001_sync"
    write_object_data(tmp_path / "object")
    write_odometry(tmp_path / "odometry")
    write_raw(tmp_path / "raw", drive, [0, 1])
    write_labels(tmp_path / "raw" / drive[:10] / drive / "label_2" / f"{0:010d}.txt", [CAR])
    write_calibration(tmp_path / "raw" / drive[:10] / drive / "calib" / f"{0:010d}.txt")

    allow = {"allow_validation_drives": True}
    pairs = [
        build("kitti_odometry", root=str(tmp_path / "odometry"), **allow),
        build("kitti_raw", root=str(tmp_path / "raw"), **allow),
        build("folder", root=str(tmp_path / "odometry" / "sequences" / "03" / "velodyne"), cache_dir=str(tmp_path)),
    ]
    Packing(pairs[0], tmp_path / "packed", "").run()
    Packing(KittiObject(tmp_path / "object"), tmp_path / "packed_labelled", "").run()
    pairs.append(build("packed", root=str(tmp_path / "packed")))
    labelled = [
        build("packed_labelled", root=str(tmp_path / "packed_labelled")),
        build("kitti_object", root=str(tmp_path / "object")),
        build("kitti_raw_labelled", root=str(tmp_path / "raw")),
        build(
            "kitti_labelled",
            parts={"object": {"root": str(tmp_path / "object")}, "raw": {"root": str(tmp_path / "raw")}},
        ),
    ]
    assert all(isinstance(data, PairDataset) and len(data[0].source.xyz) for data in pairs)
    assert all(isinstance(data, LabelledDataset) and len(data[0].boxes) == 1 for data in labelled)


def test_nuscenes(tmp_path: Path):
    write_release(tmp_path, ("scene-0061",), frames=4, every=3)
    settings = {"root": str(tmp_path), "version": VERSION}
    pairs, labelled = build("nuscenes", **settings), build("nuscenes_labelled", **settings)
    assert isinstance(pairs, PairDataset) and len(pairs) == 2
    assert isinstance(labelled, LabelledDataset) and len(labelled[1].boxes)
    assert labelled[1].sweep.contract.channels == (*pairs[0].source.contract.channels, "time")


def test_waymo(tmp_path: Path):
    write_segments(tmp_path, ("100_000",), frames=2)
    pairs, labelled = build("waymo", root=str(tmp_path)), build("waymo_labelled", root=str(tmp_path))
    assert isinstance(pairs, PairDataset) and len(pairs) == 1
    assert isinstance(labelled, LabelledDataset) and len(labelled[1].boxes)
    assert labelled[1].sweep.contract == pairs[0].source.contract


def test_kitti360_semantickitti_argoverse2_once_and_own_logs(tmp_path: Path):
    write_kitti360(tmp_path / "kitti360")
    write_odometry(tmp_path / "semantickitti", "00")
    write_simulated_log(tmp_path / "argoverse2")
    write_once(tmp_path / "once", split="train")
    write_log(tmp_path / "drive", driven(3))
    roots = {name: str(tmp_path / name) for name in ("kitti360", "semantickitti", "argoverse2", "once")}
    pairs = [
        build("kitti360", root=roots["kitti360"]),
        build("semantickitti", root=roots["semantickitti"]),
        build("argoverse2", root=roots["argoverse2"], accumulate=2),
        build("argoverse2_flow", root=roots["argoverse2"]),
        build("once", root=roots["once"], splits=["train"]),
        build("own_log", root=str(tmp_path / "drive"), cache_dir=str(tmp_path / "cache")),
    ]
    labelled = [
        build("argoverse2_labelled", root=roots["argoverse2"]),
        build("once_labelled", root=roots["once"]),
    ]
    assert all(isinstance(data, PairDataset) and len(data[0].source.xyz) for data in pairs)
    assert all(isinstance(data, LabelledDataset) and len(data[0].boxes) for data in labelled)


@pytest.mark.parametrize(("name", "count"), [("all", 2), ("subset", 1)])
def test_labels(tmp_path: Path, name: str, count: int):
    labels = instantiate(OmegaConf.load(CONFIGS / "labels" / f"{name}.yaml"), _convert_="all")
    subset = labels(dataset=KittiObject(write_object_data(tmp_path)))
    assert isinstance(subset, LabelledSubset) and len(subset) == count
