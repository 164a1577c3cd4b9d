"""Waymo's boxes, from segments made of simulated sweeps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.data import waymo_records
from equilidar.data.faults import FaultySweepError
from equilidar.data.protocols import LabelledDataset
from equilidar.data.tfrecord import read_record
from equilidar.data.waymo import Waymo
from equilidar.data.waymo_labelled import WaymoLabelled
from tests.data.fake_waymo import (
    HEIGHT,
    ZONE_BEYOND,
    rewrite,
    segment_file,
)


def test_boxes_velocities_and_zones(waymo_root: Path, waymo_simulated: list):
    data = WaymoLabelled(waymo_root, lidars=["TOP"], returns=[1], class_names=["Cyclist", "Vehicle"])
    assert isinstance(data, LabelledDataset) and len(data) == 6
    moving = 0
    for index in range(len(data)):
        objects, truth = data.objects(index), waymo_simulated[index // 3][index % 3].objects
        sample = data[index]
        kept = [i for i in range(len(objects)) if objects.types[i] in (1, 4) and truth.num_points[i] > 0]
        assert len(objects) == len(truth.track) and len(sample.boxes) == len(kept)
        np.testing.assert_allclose(sample.boxes.center, truth.center[kept] + [0, 0, HEIGHT], atol=1e-4)
        np.testing.assert_allclose(sample.boxes.size, truth.size[kept], rtol=1e-6)
        np.testing.assert_allclose(np.cos(sample.boxes.yaw), np.cos(truth.yaw[kept]), atol=1e-5)
        np.testing.assert_allclose(sample.boxes.velocity, truth.velocity[kept], atol=1e-4)
        assert sample.boxes.label.tolist() == [0 if objects.types[i] == 4 else 1 for i in kept]
        moving += int((sample.boxes.velocity.norm(dim=1) > 0.5).sum())
        zone = data.in_no_label_zone(index)
        np.testing.assert_array_equal(zone, sample.sweep.xyz[:, 1].numpy() > ZONE_BEYOND)
        assert objects.no_label_zones[0].tolist() == [[0, 2], [1, 2], [1, 3]]
    assert moving > 3
    tracks = [set(data[i].boxes.track.tolist()) for i in (0, 1, 3)]
    assert tracks[0] & tracks[1] and not tracks[0] & tracks[2]
    dropped = WaymoLabelled(waymo_root, lidars=["TOP"], returns=[1], drop_no_label_zones=True)
    assert len(dropped.sweep(0).xyz) == int((~data.in_no_label_zone(0)).sum()) < len(data.sweep(0).xyz)
    assert dropped.provenance()["hash"] != data.provenance()["hash"]
    assert len(WaymoLabelled(waymo_root, every=2)) == 4


def test_a_frame_s_record_is_read_once(waymo_root: Path, waymo_simulated: list, monkeypatch: pytest.MonkeyPatch):
    read = []
    monkeypatch.setattr(
        waymo_records, "read_record", lambda path, offset: read.append(offset) or read_record(path, offset)
    )
    for accumulate in (1, 2):
        data = WaymoLabelled(waymo_root, accumulate=accumulate)
        read.clear()
        item = data[1]
        assert len(read) == len(set(read)) == accumulate
        assert torch.equal(item.sweep.xyz, data.sweep(1).xyz)
        assert torch.equal(item.sweep.features, data.sweep(1).features)


def test_broken_labels_and_none(waymo_copy: Path):
    rewrite(segment_file(waymo_copy), 0, lambda f: setattr(f.laser_labels[0].box, "center_x", float("nan")))
    rewrite(segment_file(waymo_copy), 1, lambda f: f.ClearField("laser_labels"))
    data = WaymoLabelled(waymo_copy)
    with pytest.raises(FaultySweepError, match=r"segment-100_000.*has no valid box"):
        data[0]
    assert len(data[1].boxes) == 0 and len(data[1].sweep.xyz)
    assert len(Waymo(waymo_copy)) == 4, "pairs do not read labels"
