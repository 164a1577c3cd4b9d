"""Gt-sampling: nothing overlaps, nothing is left inside, objects stand on the ground, the sample's seed decides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.data.gt_database import build_gt_database
from equilidar.data.gt_sampling import GtSampling, no_gt_sampling
from equilidar.data.kitti_joined import JoinedKittiFrames
from equilidar.data.kitti_object import KittiObject
from equilidar.data.kitti_raw_labelled import KittiRawLabelled
from equilidar.data.loading import make_loader
from equilidar.data.local_ground import LocalGround
from equilidar.data.simulator import SimulatedSweeps
from equilidar.data.subsets import LabelledSubset
from equilidar.ops.points_in_boxes import membership
from equilidar.ops.rotated_iou import bev_iou
from equilidar.structures import Boxes3D, LabelledSweep
from tests.data.labelled_rooms import Rooms, ground_height

COUNTS = {"Car": 6, "Pedestrian": 5, "Cyclist": 4}


def sampling(folder: Path, train: LabelledSubset, **settings) -> GtSampling:
    path = folder / f"{train.subset.hash}.arrow"
    if not path.is_file():
        build_gt_database(train, path)
    return GtSampling(train, **{"database": path, "counts": COUNTS, **settings})


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> tuple[LabelledSubset, GtSampling]:
    train = LabelledSubset(Rooms(12, objects=5))
    return train, sampling(tmp_path_factory.mktemp("gt"), train, min_points=1, max_difficulty=None)


def check_pasted(before: LabelledSweep, after: LabelledSweep, ground_tolerance: float) -> int:
    """Check what must hold of any sweep that objects were pasted into; return how many there are."""
    num = len(before.boxes)
    pasted = after.boxes.select(torch.arange(len(after.boxes)) >= num)
    for name in ("center", "size", "yaw", "label", "track"):
        assert torch.equal(getattr(after.boxes, name)[:num], getattr(before.boxes, name))
    assert after.key == before.key and after.obstacles is before.obstacles
    if len(pasted) == 0:
        assert torch.equal(after.sweep.xyz, before.sweep.xyz)
        return 0
    known = before.boxes if before.obstacles is None else Boxes3D.collate([before.boxes, before.obstacles])
    assert (bev_iou(pasted.as_tensor(), known.as_tensor()) < 1e-9).all()
    among = bev_iou(pasted.as_tensor(), pasted.as_tensor())
    assert (among - torch.diag(among.diagonal()) < 1e-9).all()

    inside = membership(before.sweep.xyz, pasted.as_tensor()).any(0)
    kept = int((~inside).sum())
    assert torch.equal(after.sweep.xyz[:kept], before.sweep.xyz[~inside])
    assert torch.equal(after.sweep.features[:kept], before.sweep.features[~inside])
    assert not membership(after.sweep.xyz[:kept], pasted.as_tensor()).any()
    added = pasted.contains(after.sweep.xyz[kept:], margin=2e-3)
    assert added.any(0).all() and added.any(1).all()

    objects = membership(before.sweep.xyz, known.as_tensor()).any(0)
    ground = LocalGround.of_points(before.sweep.xyz[~objects].numpy()).heights(pasted.center[:, :2].numpy())
    bottom = (pasted.center[:, 2] - pasted.size[:, 2] / 2).numpy()
    np.testing.assert_allclose(bottom, ground, atol=ground_tolerance)
    return len(pasted)


@settings(max_examples=40, deadline=None)
@given(index=st.integers(0, 11), seed=st.integers(0, 2**62))
def test_what_holds_of_every_pasted_sweep(rooms, index: int, seed: int):
    train, paste = rooms
    item = train[index]
    after = paste(item, seed)
    num = check_pasted(item, after, 1e-3)
    slope, height = train.dataset.plane(index)
    pasted = after.boxes.select(torch.arange(len(after.boxes)) >= len(item.boxes))
    true = ground_height(pasted.center[:, :2].numpy().astype(float), slope, height)
    np.testing.assert_allclose((pasted.center[:, 2] - pasted.size[:, 2] / 2).numpy(), true, atol=0.1)
    counts = torch.bincount(after.boxes.label, minlength=3).tolist()
    present = torch.bincount(item.boxes.label, minlength=3).tolist()
    for name, count, before in zip(train.class_names, counts, present, strict=True):
        assert count <= max(COUNTS[name], before)
    assert num <= sum(COUNTS.values())


def test_objects_come_from_other_sweeps_only(rooms):
    train, paste = rooms
    for index in range(len(train)):
        item = train[index]
        after = paste(item, index)
        # Features tell which sweep a point was measured in; there are 4000 points of ground besides objects.
        own = torch.isclose(after.sweep.features[:, 0], item.sweep.features[0, 0])
        assert own.sum() <= len(item.sweep.xyz) and (~own).any()
        pasted = after.boxes.select(torch.arange(len(after.boxes)) >= len(item.boxes))
        points = after.sweep.xyz[~own]
        assert pasted.contains(points, margin=2e-3).any(0).all()


def test_velocities_come_along(rooms, monkeypatch: pytest.MonkeyPatch):
    train, paste = rooms
    known = np.random.default_rng(0).normal(0, 5, paste.database.velocity.shape).astype(np.float32)
    known[::3] = np.nan
    monkeypatch.setattr(paste.database, "velocity", known)
    item = train[0]
    item.boxes.velocity[:] = 7.0
    after = paste(item, 0)
    assert (after.boxes.velocity[: len(item.boxes)] == 7).all()
    pasted = after.boxes.select(torch.arange(len(after.boxes)) >= len(item.boxes))
    assert len(pasted)
    for size, velocity in zip(pasted.size.numpy(), pasted.velocity.numpy(), strict=True):
        row = int(np.abs(paste.database.box[:, 3:6] - size).sum(1).argmin())
        np.testing.assert_array_equal(velocity, known[row])


def test_the_seed_decides_and_nothing_else(rooms):
    train, paste = rooms
    first, again, other = paste(train[3], 5), paste(train[3], 5), paste(train[3], 6)
    assert torch.equal(first.sweep.xyz, again.sweep.xyz) and torch.equal(first.boxes.center, again.boxes.center)
    assert len(first.sweep.xyz) != len(other.sweep.xyz)


def test_any_number_of_workers_gives_the_same_sweeps(rooms):
    train, paste = rooms

    def epoch(num_workers: int, batch_size: int) -> dict[str, torch.Tensor]:
        loader = make_loader(train, "labelled", batch_size, seed=3, num_workers=num_workers, transform=paste)
        found = {}
        for loaded in loader:
            clouds, boxes = loaded.batch.points.split(), loaded.batch.boxes.split()
            for key, cloud, own in zip(loaded.batch.keys, clouds, boxes, strict=True):
                found[key] = torch.cat([cloud.xyz.flatten(), own.as_tensor().flatten()])
        return found

    alone, two, larger = epoch(0, 2), epoch(2, 2), epoch(2, 4)
    assert len(alone) == len(train)
    assert all(torch.equal(alone[key], two[key]) and torch.equal(alone[key], larger[key]) for key in alone)


def test_class_counts_are_filled_up_or_added(tmp_path: Path):
    train = LabelledSubset(Rooms(40, objects=1, level=True))
    settings = {"min_points": 1, "max_difficulty": None, "counts": {"Pedestrian": 3}}
    filled, added = sampling(tmp_path, train, **settings), sampling(tmp_path, train, fill=False, **settings)
    more = []
    for index in range(len(train)):
        item = train[index]
        present = int((item.boxes.label == 1).sum())
        after = [int((paste(item, index).boxes.label == 1).sum()) for paste in (filled, added)]
        assert after[0] <= 3 and after[1] <= present + 3
        others = [int((paste(item, index).boxes.label != 1).sum()) for paste in (filled, added)]
        assert others == [int((item.boxes.label != 1).sum())] * 2
        more.append(after[1] - after[0] if present else 0)
    assert sum(more) > 0


def test_every_object_of_the_pool_is_drawn_about_equally_often(rooms):
    train, paste = rooms
    drawn = np.concatenate([paste._draw(train[0], seed) for seed in range(400)])
    for label in range(3):
        own = drawn[paste.database.label[drawn] == label]
        pool = paste._pool[train.class_names[label]]
        usable = [row for row in pool if paste.database.keys[row] != train.keys[0]]
        counts = np.bincount(own, minlength=len(paste.database))[usable]
        assert set(own) == set(usable) and counts.max() < 1.6 * counts.mean() and counts.min() > 0.5 * counts.mean()


def test_hard_and_thin_objects_are_left_out(tmp_path: Path):
    train = LabelledSubset(Rooms(8))
    paste = sampling(tmp_path, train, min_points=45, max_difficulty=2)
    rows = np.concatenate(list(paste._pool.values()))
    assert (paste.database.num_points[rows] >= 45).all() and (paste.database.difficulty[rows] <= 2).all()
    suits = (paste.database.num_points >= 45) & (paste.database.difficulty <= 2)
    assert len(rows) == suits.sum() < len(paste.database)
    assert sum(paste.provenance()["usable"].values()) == len(rows)


def test_more_is_cleared_than_the_box_where_that_is_asked_for(tmp_path: Path):
    train = LabelledSubset(Rooms(8))
    settings = {"min_points": 1, "max_difficulty": None}
    plain = sampling(tmp_path, train, **settings)(train[0], 1)
    wide = sampling(tmp_path, train, extra_size=[1.0, 1.0, 0.5], **settings)(train[0], 1)
    assert torch.equal(plain.boxes.center, wide.boxes.center) and len(wide.sweep.xyz) < len(plain.sweep.xyz)


def test_without_ground_nothing_is_pasted_unless_heights_are_kept(tmp_path: Path):
    train = LabelledSubset(Rooms(8))
    item = train[0]
    empty = LabelledSweep(item.sweep, Boxes3D.empty())
    empty.sweep.xyz, empty.sweep.features = item.sweep.xyz[:0], item.sweep.features[:0]
    settings = {"min_points": 1, "max_difficulty": None}
    assert len(sampling(tmp_path, train, **settings)(empty, 1).boxes) == 0
    floating = sampling(tmp_path, train, on_ground=False, **settings)(empty, 1)
    assert len(floating.boxes) > 5 and floating.boxes.contains(floating.sweep.xyz, margin=1e-4).any(0).all()


def test_obstacles_are_not_pasted_onto(rooms):
    train, paste = rooms
    item = train[0]
    everywhere = Boxes3D.make(torch.zeros(1, 3), torch.tensor([[100.0, 100, 5]]), torch.zeros(1))
    blocked = paste(LabelledSweep(item.sweep, item.boxes, everywhere), 1)
    assert len(blocked.boxes) == len(item.boxes)


def test_other_labels_are_an_error_that_names_both_hashes(tmp_path: Path):
    half, whole = LabelledSubset(Rooms(8), 0.5, 1), LabelledSubset(Rooms(8))
    path = build_gt_database(half, tmp_path / "half.arrow").path
    expected = rf"built from label subset {half.subset.hash} .*this run trains on {whole.subset.hash}"
    with pytest.raises(ValueError, match=expected):
        GtSampling(whole, database=path, counts=COUNTS)
    assert no_gt_sampling(whole) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": {"Van": 3}}, r"gt_sampling\.counts has 'Van'; the classes are Car, Pedestrian, Cyclist"),
        ({"counts": {"Car": -1}}, r"gt_sampling\.counts\.Car must not be negative, got -1"),
        ({"min_points": 0}, r"gt_sampling\.min_points must be at least 1, got 0"),
        ({"extra_size": [0.1, 0.2]}, r"gt_sampling\.extra_size must be three lengths"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        sampling(tmp_path, LabelledSubset(Rooms(4)), **settings)


def test_difficulty_is_not_asked_for_where_there_is_none(tmp_path: Path):
    class Unrated(Rooms):
        difficulties = None

    with pytest.raises(ValueError, match="have no difficulty level: set it to null"):
        sampling(tmp_path, LabelledSubset(Unrated(4)))


def test_pairs_cannot_be_transformed(rooms):
    train, paste = rooms
    with pytest.raises(ValueError, match="transform is for labelled sweeps"):
        make_loader(train, "pairs", 2, seed=0, transform=paste)


def test_simulated_streets(tmp_path: Path):
    sensor = {"name": "hdl64e", "azimuth_steps": 720, "beam_stride": 2}
    train = LabelledSubset(SimulatedSweeps(sensor, 3, 2, seed=7, frame_step=16))
    paste = sampling(tmp_path, train)
    items = [train[index] for index in range(len(train))]
    assert sum(check_pasted(item, paste(item, seed), 1e-3) for seed, item in enumerate(items)) > 12


def test_sample_kitti_frames(samples: Path, tmp_path: Path):
    if not (samples / "kitti_object").is_dir() or not (samples / "kitti_raw").is_dir():
        pytest.skip(f"no labelled KITTI frames under {samples}")
    parts = {"object": KittiObject(samples / "kitti_object", "all"), "raw": KittiRawLabelled(samples / "kitti_raw")}
    train = LabelledSubset(JoinedKittiFrames(parts))
    paste = sampling(tmp_path, train, counts={"Car": 20, "Pedestrian": 15, "Cyclist": 15})
    items = [train[index] for index in range(len(train))]
    assert sum(check_pasted(item, paste(item, seed), 1e-3) for seed, item in enumerate(items)) > 5 * len(train)
