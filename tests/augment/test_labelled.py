import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.augment.group import SpatialGroup
from equilidar.augment.labelled import LabelledAugmentation
from equilidar.structures import Affine3, Boxes3D, GridSpec, LabelledBatch, PointCloudBatch

GRID = GridSpec.from_range([-40, -40, -3, 40, 40, 1], [0.5, 0.5, 0.1])


def make_batch(seeds: list[int], seed: int = 0) -> LabelledBatch:
    generator = torch.Generator().manual_seed(seed)
    clouds, boxes = [], []
    for item in range(len(seeds)):
        num = (3, 0, 5)[item % 3]
        center = torch.rand(num, 3, generator=generator) * torch.tensor([40.0, 40, 2]) - torch.tensor([20.0, 20, 2])
        size = 1 + 3 * torch.rand(num, 3, generator=generator)
        boxes.append(Boxes3D.make(center, size, 6 * torch.rand(num, generator=generator) - 3))
        xyz = torch.cat([center, torch.rand(200, 3, generator=generator) * 40 - 20])
        clouds.append(PointCloudBatch(xyz, xyz[:, :1], torch.tensor([0, len(xyz)]), ("intensity",)))
    keys = tuple(str(i) for i in range(len(seeds)))
    return LabelledBatch(PointCloudBatch.collate(clouds), Boxes3D.collate(boxes), torch.tensor(seeds), keys)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**60), min_size=1, max_size=4))
def test_points_and_boxes_move_together(seeds: list[int]) -> None:
    batch = make_batch(seeds)
    moved = LabelledAugmentation(GRID)(batch)
    assert len(moved.boxes) == len(batch.boxes)  # all centers within 40 m even when scaled and turned
    for before, after, cloud, moved_cloud in zip(
        batch.boxes.split(), moved.boxes.split(), batch.points.split(), moved.points.split(), strict=True
    ):
        margin = 1e-3
        inside = before.contains(cloud.xyz, -margin)
        outside = ~before.contains(cloud.xyz, margin)
        again = after.contains(moved_cloud.xyz)
        assert again[inside].all() and not again[outside].any()
    assert torch.equal(moved.points.features, batch.points.features)
    assert moved.keys == batch.keys and torch.equal(moved.boxes.label, batch.boxes.label)


def test_draws_follow_the_sample_and_span_the_ranges() -> None:
    augmentation = LabelledAugmentation(GRID)
    together = augmentation(make_batch([5, 6, 7]))
    again = augmentation(make_batch([5, 6, 7]))
    assert torch.equal(together.points.xyz, again.points.xyz)
    one = make_batch([5, 6, 7])
    alone = LabelledBatch(one.points.split()[2], one.boxes.split()[2], one.seeds[2:], one.keys[2:])
    assert torch.equal(augmentation(alone).points.xyz, together.points.split()[2].xyz)
    draw = augmentation.group.sample(torch.arange(2000), 3)
    assert draw.yaw.abs().max() <= math.pi / 4 and draw.yaw.min() < -0.77 and draw.yaw.max() > 0.77
    assert 0.95 <= draw.scale.min() < 0.951 and 1.049 < draw.scale.max() <= 1.05
    assert 0.45 < draw.flip_y.float().mean() < 0.55 and (draw.translation == 0).all()


def test_half_turns_and_shifts_come_on_top() -> None:
    """Mirrors of x and y, each with probability 0.5, and a normal shift: nuScenes as OpenPCDet trains on it."""
    plain = LabelledAugmentation(GRID)
    more = LabelledAugmentation(GRID, half_turn_probability=0.5, translation_std=(0.5, 1.0, 0.0))
    seeds = torch.arange(20_000)
    before, after = plain.draw(seeds), more.draw(seeds)
    turned = after.yaw != before.yaw
    torch.testing.assert_close(after.yaw - before.yaw, turned * math.pi)
    for flipped in (False, True):
        assert 0.48 < turned[before.flip_y == flipped].float().mean() < 0.52
    # x -> -x is y -> -y and then half a turn.
    mirror_x = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    half = LabelledAugmentation(GRID, SpatialGroup((0.0, 0.0), (1.0, 1.0), 1.0, (0.0, 0.0)), half_turn_probability=1.0)
    torch.testing.assert_close(half.draw(seeds[:1]).affine().linear[0], mirror_x, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.translation.std(0), torch.tensor([0.5, 1.0, 0.0]), rtol=0.03, atol=0)
    assert after.translation.mean(0).abs().max() < 0.03 and after.translation.isfinite().all()
    assert abs(torch.corrcoef(after.translation[:, :2].T)[0, 1]) < 0.03
    assert (before.translation == 0).all() and torch.equal(after.scale, before.scale)


def test_velocities_turn_and_grow_with_their_boxes() -> None:
    """OpenPCDet scales velocities, too; an unknown one stays unknown and spoils no other."""
    batch = make_batch([3, 4, 5])
    batch.boxes.velocity[:] = torch.stack([batch.boxes.yaw.cos(), batch.boxes.yaw.sin(), 0 * batch.boxes.yaw], 1)
    batch.boxes.velocity[2] = math.nan
    augmentation = LabelledAugmentation(GRID, half_turn_probability=0.5)
    moved = augmentation(batch).boxes
    assert moved.velocity[2].isnan().all() and len(moved) == len(batch.boxes)
    scale = augmentation.draw(batch.seeds).scale[moved.batch_index, None]
    ahead = torch.stack([moved.yaw.cos(), moved.yaw.sin(), 0 * moved.yaw], 1) * scale
    known = torch.arange(len(moved)) != 2
    torch.testing.assert_close(moved.velocity[known], ahead[known], atol=1e-5, rtol=0)


@pytest.mark.parametrize("change", [{"half_turn_probability": 1.5}, {"translation_std": (0.5, -0.5, 0.5)}])
def test_impossible_settings_are_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=f"augment.{next(iter(change))}"):
        LabelledAugmentation(GRID, **change)


def test_boxes_that_leave_the_grid_are_dropped() -> None:
    center = torch.tensor([[30.0, 0, 0], [39.5, 0, 0], [0.0, 39.9, 0], [0, 0, 0.99]])
    boxes = Boxes3D.make(center, torch.ones(4, 3), torch.zeros(4), label=torch.arange(4))
    points = PointCloudBatch(torch.zeros(0, 3), torch.zeros(0, 1), torch.tensor([0, 0]), ("intensity",))
    batch = LabelledBatch(points, boxes, torch.tensor([1]), ("a",))
    enlarge = SpatialGroup((0.0, 0.0), (1.05, 1.05), 0.0, (0.0, 0.0))
    assert LabelledAugmentation(GRID, enlarge)(batch).boxes.label.tolist() == [0]
    keep = SpatialGroup((0.0, 0.0), (1.0, 1.0), 0.0, (0.0, 0.0))
    assert LabelledAugmentation(GRID, keep)(batch).boxes.label.tolist() == [0, 1, 2, 3]


# OpenPCDet's names: flip_along_x mirrors y, flip_along_y mirrors x (that is y mirrored, then half a turn).
FACTOR = "scaling/scale"
NAMED = {
    "flip_along_x": {"flip_y": True},
    "flip_along_y": {"flip_y": True, "yaw": math.pi},
    "scaling": {"scaled": True},
    "chain_flipx_rot0.3_scale": {"flip_y": True, "yaw": 0.3, "scaled": True},
}


def test_openpcdet_oracle_flips_rotations_scalings(oracles) -> None:
    with np.load(oracles / "openpcdet/conventions/augment_boxes.npz", allow_pickle=False) as file:
        case = dict(file)
    rotations = {n.rsplit("/", 1)[0]: {} for n in case if n.startswith("rotation/")}
    for name in rotations:
        exact = {"-0.785398": -math.pi / 4}.get(name.split("/")[1])
        rotations[name] = {"yaw": float(name.split("/")[1]) if exact is None else exact}
    assert rotations and set(NAMED) <= {n.rsplit("/", 1)[0] for n in case}
    for name, parts in (NAMED | rotations).items():
        transform = Affine3.from_parts(
            yaw=torch.tensor([parts.get("yaw", 0.0)]),
            scale=torch.tensor([float(case[FACTOR]) if parts.get("scaled") else 1.0]),
            flip_y=torch.tensor([parts.get("flip_y", False)]),
        )
        points = torch.from_numpy(case["in/points"])
        moved = transform.apply(points[:, :3], torch.tensor([0, len(points)]))
        np.testing.assert_allclose(moved, case[f"{name}/points"][:, :3], atol=2e-5, err_msg=name)
        for columns in ("boxes7", "boxes9"):
            rows = torch.from_numpy(case[f"in/{columns}"])
            velocity = torch.cat([rows[:, 7:9], torch.zeros(len(rows), 1)], 1) if columns == "boxes9" else None
            boxes = Boxes3D.make(rows[:, :3], rows[:, 3:6], rows[:, 6], velocity=velocity).transformed(transform)
            expected = case[f"{name}/{columns}"]
            np.testing.assert_allclose(boxes.as_tensor()[:, :6], expected[:, :6], atol=2e-5, err_msg=name)
            turn = np.angle(np.exp(1j * (boxes.yaw.numpy() - expected[:, 6])))  # ours is wrapped, theirs is not
            np.testing.assert_allclose(turn, 0, atol=1e-5, err_msg=name)
            if columns == "boxes9":
                np.testing.assert_allclose(boxes.velocity[:, :2], expected[:, 7:9], atol=1e-5, err_msg=name)


def test_openpcdet_oracle_corners(oracles) -> None:
    with np.load(oracles / "openpcdet/conventions/augment_boxes.npz", allow_pickle=False) as file:
        rows, corners = torch.from_numpy(file["in/boxes7"]), file["corners/boxes7_corners"]
    np.testing.assert_allclose(Boxes3D.make(rows[:, :3], rows[:, 3:6], rows[:, 6]).corners(), corners, atol=1e-5)
