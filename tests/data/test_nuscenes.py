"""nuScenes: against its devkit on a release made of simulated sweeps, and against the counts of a real key frame."""

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.nuscenes import NuScenes as Devkit
from nuscenes.utils import splits
from nuscenes.utils.data_classes import LidarPointCloud
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from equilidar.data import nuscenes_tables
from equilidar.data.faults import FaultySweepError
from equilidar.data.nuscenes import NuScenes
from equilidar.data.nuscenes_annotations import CATEGORIES, CLASS_NAMES
from equilidar.data.nuscenes_labelled import NuScenesLabelled
from equilidar.data.nuscenes_splits import split_scenes
from equilidar.data.nuscenes_tables import read_table, rows
from equilidar.data.protocols import LabelledDataset, PairDataset
from tests.data.fake_nuscenes import VERSION, Release, nuscenes_points, pose_columns, token, write_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="module")
def devkit(release: Release) -> Devkit:
    return Devkit(VERSION, str(release.root), verbose=False)


def pairs(release: Release, split: str = "all", **settings: Any) -> NuScenes:
    return NuScenes(release.root, VERSION, split, **settings)


def copy_of(release: Release, root: Path) -> Release:
    """Return a release of its own tables, over the same sweeps."""
    for name in ("samples", "sweeps", "maps"):
        (root / name).symlink_to(release.root / name)
    copy = Release(root, json.loads(json.dumps(release.tables)), release.sweeps, release.poses)
    copy.save()
    return copy


def test_sweeps_poses_and_times(release: Release):
    data = pairs(release)
    assert isinstance(data, PairDataset) and data.scenes == ["scene-0061", "scene-0103"]
    assert data.num_sweeps == 26 and len(data) == 24 and len(data.runs) == 2
    files = [row for row in release.tables["sample_data"] if "LIDAR" in row["filename"]]
    for index, row in enumerate(files):
        sweep = data.sweep(index)
        assert sweep.key == f"nuscenes/{row['filename'].split('/')[-1].split('__')[0]}/{row['timestamp']}"
        assert sweep.timestamp == pytest.approx(row["timestamp"] * 1e-6, abs=1e-6)
        pose = torch.from_numpy(release.poses[row["filename"]])
        torch.testing.assert_close(sweep.world_T_sensor, pose, atol=1e-9, rtol=0)
        points = nuscenes_points(release.sweeps[row["filename"]])[:-4]
        np.testing.assert_array_equal(sweep.xyz.numpy(), points[:, :3], err_msg="without the vehicle's own points")
        np.testing.assert_allclose(sweep.features.numpy() * sweep.contract.scales, points[:, 3:], atol=1e-4)
    assert sweep.contract.channels == ("intensity", "ring") and sweep.contract.frame == "sensor"


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


def test_key_frames_as_targets(release: Release):
    data = pairs(release, targets="key_frames", gap=3, accumulate=2)
    stamps = {row["timestamp"] for row in release.tables["sample"]}
    assert len(data) == 4 and all(int(key.split("/")[-1]) in stamps for key in data.keys)
    pair = data[0]
    assert pair.target.timestamp - pair.source.timestamp == pytest.approx(0.15, abs=1e-6)
    assert sorted(set(pair.source.features[:, 2].tolist())) == pytest.approx([0.0, 0.05], abs=1e-6)


def test_a_missing_sweep_cuts_the_scene(release: Release, tmp_path: Path):
    copy = copy_of(release, tmp_path)
    gone = next(row for row in copy.tables["sample_data"] if "sweeps/LIDAR_TOP" in row["filename"])
    copy.tables["sample_data"].remove(gone)
    copy.save("sample_data")
    data = pairs(copy)
    assert len(data.runs) == 3 and len(data) == 22 and not any(str(gone["timestamp"]) in key for key in data.keys)


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


def test_provenance_tells_settings_and_tables_apart(release: Release, tmp_path: Path):
    hashes = {
        pairs(release, **settings).provenance()["hash"]
        for settings in ({}, {"accumulate": 2}, {"targets": "key_frames"}, {"ego_radius": 2.0}, {"gap": 2})
    }
    assert len(hashes) == 5
    copy = copy_of(release, tmp_path)
    before = NuScenesLabelled(copy.root, VERSION, "all").provenance()["hash"]
    copy.tables["sample_annotation"][0]["translation"][0] += 1
    copy.save("sample_annotation")
    assert NuScenesLabelled(copy.root, VERSION, "all").provenance()["hash"] != before


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_tables_are_read_in_pieces(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch):
    table = [{"token": "a", "text": 'ä"]},{[', "n": [1.5, -2e3]}, {"token": "b", "deep": {"x": [{}]}}, {"token": "c"}]
    monkeypatch.setattr(nuscenes_tables, "_CHUNK", chunk)
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
    monkeypatch.setattr(nuscenes_tables, "_CHUNK", 1 << 16)
    row = json.dumps({"token": "T", "filename": "f" * 60, "numbers": [0.1] * 20})
    path = tmp_path / "sample_data.json"
    path.write_text("[" + ",\n".join(row.replace("T", str(i)) for i in range(10_000)) + "]")
    tracemalloc.start()
    table = read_table(path, ("filename",), lambda row: row["token"] == "9999")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(table) == 1 and peak < 2e6


def broken(table: str, change: Any) -> Any:
    def apply(copy: Release) -> None:
        change(copy.tables[table])
        copy.save(table)

    return apply


def drop_pose_of_lidar(table: list[dict]) -> None:
    table.remove(next(row for row in table if row["token"] == token("scene-0103", "LIDAR_TOP", 4)))


BROKEN_TABLES = {
    "duplicate": (broken("sample_data", lambda t: t.append(dict(t[0]))), r"sample_data\.json: token \w+ occurs twice"),
    "uncovered": (broken("ego_pose", drop_pose_of_lidar), r"ego_pose\.json: no pose for 1 of 26 sweeps.*scene-0103"),
    "column": (broken("ego_pose", lambda t: t[0].pop("rotation")), r"ego_pose\.json: row \w+ has no column 'rotation'"),
    "nan": (
        broken("ego_pose", lambda t: t[0].update(translation=[float("nan"), 0, 0])),
        r"ego_pose\.json, \w+: no pose: translation \[nan",
    ),
    "quaternion": (
        broken("calibrated_sensor", lambda t: t[1].update(rotation=[0, 0, 0, 0])),
        r"calibrated_sensor\.json, \w+: no pose",
    ),
    "stamps": (
        broken("sample_data", lambda t: t[2].update(timestamp=t[0]["timestamp"])),
        r"sample_data\.json: two sweeps of scene-0061 have one time stamp",
    ),
    "missing": (lambda copy: (copy.root / VERSION / "sample.json").unlink(), r"no table .*sample\.json"),
    "names": (broken("scene", lambda t: t[1].update(name="scene-0061")), r"scene\.json: two scenes have the same name"),
}


@pytest.mark.parametrize("case", BROKEN_TABLES)
def test_broken_tables(release: Release, tmp_path: Path, case: str):
    copy = copy_of(release, tmp_path)
    change, message = BROKEN_TABLES[case]
    change(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pairs(copy)


BROKEN_ANNOTATIONS = {
    "duplicate": (lambda t: t.append(dict(t[0])), "a token occurs twice"),
    "instance": (lambda t: t[0].update(instance_token="gone"), r"annotation \w+ fits no table or column \(KeyError"),
    "size": (lambda t: t[0].update(size=[1.0, 2.0]), "numbers are not all there"),
    "nan": (lambda t: t[0].update(translation=[float("nan"), 0, 0]), "not finite"),
    "text": (lambda t: t[0].update(size=["x", 1, 2]), r"annotation \w+ fits no table or column \(ValueError"),
}


@pytest.mark.parametrize("case", BROKEN_ANNOTATIONS)
def test_broken_annotations(release: Release, tmp_path: Path, case: str):
    copy = copy_of(release, tmp_path)
    change, message = BROKEN_ANNOTATIONS[case]
    broken("sample_annotation", change)(copy)
    with pytest.raises(ValueError, match=rf"sample_annotation\.json.*{message}"):
        NuScenesLabelled(copy.root, VERSION, "all")
    assert len(pairs(copy)) == 24, "pairs do not read that table"


def test_key_frames_without_boxes_and_faulty_sweeps(release: Release, tmp_path: Path):
    copy = copy_of(release, tmp_path)
    copy.tables["sample_annotation"] = []
    copy.save("sample_annotation")
    assert all(len(NuScenesLabelled(copy.root, VERSION, "all", accumulate=1)[i].boxes) == 0 for i in range(6))

    for name in ("samples", "sweeps"):
        (tmp_path / name).unlink()
        shutil.copytree(release.root / name, tmp_path / name)
    data = pairs(copy)
    frames = [frame.path for run in data.runs for frame in run.frames]
    points = np.fromfile(frames[0], "<f4").reshape(-1, 5)
    contents = {
        "truncated": frames[1].read_bytes()[:-6],
        "no ring": points[: len(points) // 5 * 5, :4].tobytes(),
        "not finite": np.where(np.arange(5) == 1, np.float32("nan"), points).tobytes(),
        "empty file": b"",
        "no points but": points[-4:].tobytes(),
    }
    for number, (message, content) in enumerate(contents.items()):
        frames[2 * number].write_bytes(content)
        with pytest.raises(FaultySweepError, match=message) as caught:
            data.sweep(2 * number)
        assert str(frames[2 * number]) in str(caught.value)
    frames[0].unlink()
    with pytest.raises(FaultySweepError, match="cannot be read"):
        data.sweep(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ["elongation"]}, r"dataset\.channels must be of intensity, ring"),
        ({"scales": [255.0]}, r"dataset\.scales"),
        ({"targets": "some"}, r"dataset\.targets must be all or key_frames"),
        ({"gap": 13}, "no two sweeps are 13 frames apart"),
    ],
)
def test_wrong_settings(release: Release, settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        pairs(release, **settings)


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
