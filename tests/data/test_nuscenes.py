"""Pairs of nuScenes sweeps, from a release made of simulated ones."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equilidar.data.faults import FaultySweepError
from equilidar.data.nuscenes import NuScenes
from equilidar.data.nuscenes_labelled import NuScenesLabelled
from equilidar.data.protocols import PairDataset
from tests.data.fake_nuscenes import VERSION, Release, nuscenes_points, write_release


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return write_release(tmp_path_factory.mktemp("nuscenes"))


def pairs(release: Release, split: str = "all", **settings: Any) -> NuScenes:
    return NuScenes(release.root, VERSION, split, **settings)


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


def test_key_frames_as_targets(release: Release):
    data = pairs(release, targets="key_frames", gap=3, accumulate=2)
    stamps = {row["timestamp"] for row in release.tables["sample"]}
    assert len(data) == 4 and all(int(key.split("/")[-1]) in stamps for key in data.keys)
    pair = data[0]
    assert pair.target.timestamp - pair.source.timestamp == pytest.approx(0.15, abs=1e-6)
    assert sorted(set(pair.source.features[:, 2].tolist())) == pytest.approx([0.0, 0.05], abs=1e-6)


def test_a_missing_sweep_cuts_the_scene(release: Release, tmp_path: Path):
    copy = release.copy(tmp_path)
    gone = next(row for row in copy.tables["sample_data"] if "sweeps/LIDAR_TOP" in row["filename"])
    copy.tables["sample_data"].remove(gone)
    copy.save("sample_data")
    data = pairs(copy)
    assert len(data.runs) == 3 and len(data) == 22 and not any(str(gone["timestamp"]) in key for key in data.keys)


def test_provenance_tells_settings_and_tables_apart(release: Release, tmp_path: Path):
    hashes = {
        pairs(release, **settings).provenance()["hash"]
        for settings in ({}, {"accumulate": 2}, {"targets": "key_frames"}, {"ego_radius": 2.0}, {"gap": 2})
    }
    assert len(hashes) == 5
    copy = release.copy(tmp_path)
    before = NuScenesLabelled(copy.root, VERSION, "all").provenance()["hash"]
    copy.tables["sample_annotation"][0]["translation"][0] += 1
    copy.save("sample_annotation")
    assert NuScenesLabelled(copy.root, VERSION, "all").provenance()["hash"] != before


def test_key_frames_without_boxes_and_faulty_sweeps(release: Release, tmp_path: Path):
    copy = release.copy(tmp_path)
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
