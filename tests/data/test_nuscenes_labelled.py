"""nuScenes's boxes and accumulated sweeps: against its devkit, and against counts of a real key frame."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes as Devkit
from nuscenes.utils.data_classes import LidarPointCloud
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from equilidar.data.nuscenes import NuScenes
from equilidar.data.nuscenes_labelled import NuScenesLabelled
from equilidar.data.nuscenes_tables import rows
from equilidar.data.protocols import LabelledDataset
from equilidar.formats.nuscenes_annotations import CATEGORIES, CLASS_NAMES
from tests.data.fake_nuscenes import VERSION, Release, edit, pose_columns, write_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="module")
def devkit(release: Release) -> Devkit:
    return Devkit(VERSION, str(release.root), verbose=False)


def pairs(release: Release, split: str = "all", **settings: Any) -> NuScenes:
    return NuScenes(release.root, VERSION, split, **settings)


def test_points_and_accumulation_agree_with_the_devkit(release: Release, devkit: Devkit):
    data = NuScenesLabelled(release.root, VERSION, "all")
    for index, sample_token in enumerate(data.sample_tokens):
        sample = devkit.get("sample", sample_token)
        cloud, lag = LidarPointCloud.from_file_multisweep(devkit, sample, "LIDAR_TOP", "LIDAR_TOP", nsweeps=10)
        sweep = data.sweep(index)
        assert len(sweep.xyz) == cloud.points.shape[1]
        np.testing.assert_allclose(sweep.xyz.numpy(), cloud.points[:3].T, atol=2e-5)
        np.testing.assert_allclose(sweep.features[:, 0].numpy() * 255, cloud.points[3], atol=1e-4)
        np.testing.assert_allclose(sweep.features[:, 2].numpy(), lag[0], atol=1e-6)
    assert float(sweep.features[:, 2].max()) == pytest.approx(0.45, abs=1e-6)


def test_boxes_agree_with_the_devkit(release: Release, devkit: Devkit):
    data = NuScenesLabelled(release.root, VERSION, "all", accumulate=1, min_points=0)
    assert isinstance(data, LabelledDataset) and data.class_names == CLASS_NAMES
    velocities = 0
    for index, sample_token in enumerate(data.sample_tokens):
        sample = devkit.get("sample", sample_token)
        _, expected, _ = devkit.get_sample_data(sample["data"]["LIDAR_TOP"])
        expected = [box for box in expected if category_to_detection_name(box.name)]
        boxes, pose = data[index].boxes, data.world_T_sensor(index)[:3, :3].numpy()
        assert len(boxes) == len(expected) > 3
        for i, box in enumerate(expected):
            assert CLASS_NAMES[int(boxes.label[i])] == category_to_detection_name(box.name)
            np.testing.assert_allclose(boxes.center[i], box.center, atol=1e-4)
            np.testing.assert_allclose(boxes.size[i], box.wlh[[1, 0, 2]], rtol=1e-6)
            corners = boxes.corners()[i].numpy()
            assert cKDTree(box.corners().T).query(corners)[0].max() < 1e-3
            front = box.rotation_matrix[:2, 0]
            np.testing.assert_allclose([np.cos(boxes.yaw[i]), np.sin(boxes.yaw[i])], front, atol=1e-5)
            np.testing.assert_allclose(boxes.velocity[i], devkit.box_velocity(box.token) @ pose, atol=1e-4)
            velocities += bool(boxes.velocity[i].norm() > 0.5)
        objects = data.objects(index)
        assert len(objects) == len(sample["anns"]) and set(objects.tokens) == set(sample["anns"])
    assert velocities > 3, "a world that stands still tests no velocity"


def test_tracks_and_points_in_boxes(release: Release):
    data = NuScenesLabelled(release.root, VERSION, ["scene-0061"], accumulate=1)
    tracks = [set(data[i].boxes.track.tolist()) for i in range(len(data))]
    assert tracks[0] & tracks[1] and not tracks[0] & set(
        NuScenesLabelled(release.root, VERSION, ["scene-0103"])[0].boxes.track.tolist()
    )
    for index in range(len(data)):
        boxes, objects = data[index].boxes, data.objects(index)
        counted = boxes.contains(data[index].sweep.xyz, margin=1e-3).sum(1)
        kept = [n for n, name in zip(objects.num_lidar_pts, objects.class_names, strict=True) if name and n]
        # Points on a neighbour's mirror may fall into a box, and range noise throws some out of theirs.
        assert len(kept) == len(counted) and np.abs(counted.numpy() - kept).max() <= 0.2 * max(kept) + 2


BROKEN_ANNOTATIONS = {
    "duplicate": (lambda t: t.append(dict(t[0])), "a token occurs twice"),
    "instance": (lambda t: t[0].update(instance_token="gone"), r"annotation \w+ fits no table or column \(KeyError"),
    "size": (lambda t: t[0].update(size=[1.0, 2.0]), "numbers are not all there"),
    "nan": (lambda t: t[0].update(translation=[float("nan"), 0, 0]), "not finite"),
    "text": (lambda t: t[0].update(size=["x", 1, 2]), r"annotation \w+ fits no table or column \(ValueError"),
}


@pytest.mark.parametrize("case", BROKEN_ANNOTATIONS)
def test_broken_annotations(release: Release, tmp_path: Path, case: str):
    copy = release.copy(tmp_path)
    change, message = BROKEN_ANNOTATIONS[case]
    edit("sample_annotation", change)(copy)
    with pytest.raises(ValueError, match=rf"sample_annotation\.json.*{message}"):
        NuScenesLabelled(copy.root, VERSION, "all")
    assert len(pairs(copy)) == 24, "pairs do not read that table"


def test_wrong_settings_of_labels_and_folders(release: Release, tmp_path: Path):
    with pytest.raises(ValueError, match=r"dataset\.class_names must be of car, truck.*got \['tram'\]"):
        NuScenesLabelled(release.root, VERSION, "all", ["tram"])
    with pytest.raises(FileNotFoundError, match=r"no tables .*v1\.0-trainval; there are: v1\.0-mini"):
        NuScenes(release.root)
    with pytest.raises(FileNotFoundError, match=r"gone does not exist.*dataset\.root"):
        NuScenes(tmp_path / "gone")


def sample_key_frames(samples: Path) -> list[tuple[dict, dict, Path]]:
    """Return (info, metainfo, points) of every real key frame whose points are here whole."""
    found = []
    for path in sorted(samples.glob("nuscenes/*.infos.json")):
        info = json.loads(path.read_text())
        for item in info["data_list"]:
            points = path.parent / "samples" / "LIDAR_TOP" / item["lidar_points"]["lidar_path"]
            if points.is_file():
                found.append((item, info["metainfo"], points))
    if not found:
        pytest.skip(f"no nuScenes key frames under {samples}")
    return found


def test_sample_counts_of_points_in_boxes(samples: Path, tmp_path: Path):
    """The real key frame, its boxes written as tables: the points in each box are those that nuScenes counted."""
    for number, (item, meta, points) in enumerate(sample_key_frames(samples)):
        name_of = {label: name for name, label in meta["categories"].items()}
        copy = Release(tmp_path / str(number))
        world_T_sensor = np.array(item["ego2global"]) @ np.array(item["lidar_points"]["lidar2ego"])
        target = copy.root / "samples" / "LIDAR_TOP" / points.name
        target.parent.mkdir(parents=True)
        target.symlink_to(points)
        time = round(item["timestamp"] * 1e6)
        tables = copy.tables
        tables["scene"] = [{"token": "scene", "name": "scene-0061"}]
        tables["sample"] = [{"token": "s", "timestamp": time, "scene_token": "scene"}]
        tables["sensor"] = [{"token": "lidar", "channel": "LIDAR_TOP"}]
        mount = pose_columns(np.array(item["lidar_points"]["lidar2ego"]))
        tables["calibrated_sensor"] = [{"token": "mount", "sensor_token": "lidar"} | mount]
        tables["ego_pose"] = [{"token": "pose"} | pose_columns(np.array(item["ego2global"]))]
        tables["sample_data"] = [
            {"token": "d", "sample_token": "s", "ego_pose_token": "pose", "timestamp": time, "is_key_frame": True,
             "calibrated_sensor_token": "mount", "filename": f"samples/LIDAR_TOP/{points.name}"}
        ]  # fmt: skip
        tables["category"] = [{"token": name, "name": CATEGORIES[name][0]} for name in CATEGORIES]
        tables["category"].append({"token": "other", "name": "animal"})
        instances = item["instances"]
        for i, instance in enumerate(instances):
            x, y, z, length, width, height, yaw = instance["bbox_3d"]
            box = np.eye(4)
            box[:3, :3], box[:3, 3] = Rotation.from_euler("z", yaw).as_matrix(), (x, y, z)
            tables["instance"].append(
                {"token": f"i{i}", "category_token": name_of.get(instance["bbox_label_3d"], "other")}
            )
            tables["sample_annotation"].append(
                {"token": f"a{i}", "sample_token": "s", "instance_token": f"i{i}", "attribute_tokens": [], "prev": "",
                 "next": "", "size": [width, length, height], "num_lidar_pts": instance["num_lidar_pts"],
                 "num_radar_pts": instance["num_radar_pts"]} | pose_columns(world_T_sensor @ box)
            )  # fmt: skip
        copy.save()
        data = NuScenesLabelled(copy.root, VERSION, "all", accumulate=1, min_points=0)
        sweep, pose = data.sweep(0), data.world_T_sensor(0).numpy()
        boxes = data.objects(0).boxes(pose, (*CLASS_NAMES, ""))
        assert len(data[0].boxes) == sum(i["bbox_label_3d"] in name_of for i in instances)
        np.testing.assert_allclose(boxes.as_tensor()[:, :6], [i["bbox_3d"][:6] for i in instances], atol=1e-3)
        counted = boxes.contains(sweep.xyz).sum(1).numpy()
        difference = np.abs(counted - [i["num_lidar_pts"] for i in instances])
        print(f"{points.name}: {(difference == 0).sum()} of {len(difference)} exact, largest {difference.max()}")
        assert (difference == 0).mean() > 0.85 and difference.max() <= 16


def test_sample_tables(samples: Path, tmp_path: Path):
    """nuScenes's own tables, cut down to a sample: sweep and pose are those of the info file made from them."""
    folders = [path.parent for path in sorted(samples.glob("nuscenes/*/sample_data.json"))]
    if not folders:
        pytest.skip(f"no nuScenes tables under {samples}")
    infos = {item["token"]: (item, points) for item, _, points in sample_key_frames(samples)}
    for folder in folders:
        root = tmp_path / folder.name
        root.mkdir()
        (root / "v1.0-mini").symlink_to(folder)
        data = NuScenesLabelled(root, "v1.0-mini", "all", min_points=0)
        for index, sample_token in enumerate(data.sample_tokens):
            if sample_token not in infos:
                continue
            item, points = infos[sample_token]
            expected = np.array(item["ego2global"]) @ np.array(item["lidar_points"]["lidar2ego"])
            np.testing.assert_allclose(data.world_T_sensor(index), expected, atol=1e-3)
            (row,) = [row for row in rows(folder / "sample_data.json") if points.name in row["filename"]]
            target = root / row["filename"]
            target.parent.mkdir(parents=True)
            target.symlink_to(points)
            sweep, boxes = data.sweep(index), data[index].boxes
            assert sweep.contract.channels == ("intensity", "ring", "time")
            assert len(sweep.xyz) == (np.abs(np.fromfile(points, "<f4").reshape(-1, 5)[:, :2]) >= 1).any(1).sum()
            assert len(boxes) == sum(bool(name) for name in data.objects(index).class_names)
            known = np.array([instance["bbox_3d"][:3] for instance in item["instances"]])
            assert cKDTree(known).query(boxes.center)[0].max() < 0.01, "each of its boxes is one of the info file's"
