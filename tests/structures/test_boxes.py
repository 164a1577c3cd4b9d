import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.structures import Affine3, Boxes3D
from equilidar.structures.boxes import wrap_angle
from equilidar.structures.offsets import from_lengths

from .strategies import assert_same, boxes, lengths, seeds, similarities, uniform

TIGHT = {"rtol": 1e-9, "atol": 1e-8}


def car(x=0.0, y=0.0, yaw=0.0):
    return Boxes3D.make(torch.tensor([[x, y, 0.0]]), torch.tensor([[4.0, 2.0, 1.5]]), torch.tensor([yaw]))


@given(st.data(), lengths)
def test_corners_move_with_the_boxes_up_to_order(data, counts):
    transform, some = data.draw(similarities(len(counts))), data.draw(boxes(counts))
    of_moved = some.transformed(transform).corners()
    moved = transform.apply(some.corners().flatten(0, 1), some.offsets * 8).view(-1, 8, 3)
    distance = (of_moved[:, :, None] - moved[:, None]).norm(dim=-1)
    # Each corner is met by one of the other set, from both sides: a bijection, for corners are apart.
    assert (distance.amin(1) < 1e-8).all() and (distance.amin(2) < 1e-8).all()


@given(st.data(), lengths, seeds)
def test_containment_is_invariant(data, counts, seed):
    transform, some = data.draw(similarities(len(counts))), data.draw(boxes(counts))
    generator = torch.Generator().manual_seed(seed)
    for item, box in enumerate(some.split()):
        move = transform[[item]]
        xyz = uniform(generator, -50, 50, 40, 3)
        if len(box):
            # Around the first box, along its own axes, so that inside and outside both occur.
            local = uniform(generator, -1, 1, 40, 3) * box.size[0]
            xyz = Affine3.from_parts(yaw=box.yaw[:1], translation=box.center[:1]).apply(local, from_lengths([40]))
        moved = box.transformed(move).contains(move.apply(xyz, from_lengths([40])))
        assert (box.contains(xyz, -1e-7) <= moved).all() and (moved <= box.contains(xyz, 1e-7)).all()
        assert len(box) == 0 or not moved[0].all()


@given(st.data(), lengths)
def test_transforms_compose_on_boxes(data, counts):
    outer, inner = data.draw(similarities(len(counts))), data.draw(similarities(len(counts)))
    some = data.draw(boxes(counts))
    twice, once = some.transformed(inner).transformed(outer), some.transformed(outer @ inner)
    for name in ("center", "size", "velocity"):
        torch.testing.assert_close(getattr(twice, name), getattr(once, name), rtol=1e-7, atol=1e-6)
    torch.testing.assert_close((twice.yaw - once.yaw).cos(), torch.ones_like(once.yaw), **TIGHT)
    back = some.transformed(inner).transformed(inner.inverse())
    torch.testing.assert_close(back.center, some.center, rtol=1e-7, atol=1e-6)
    torch.testing.assert_close((back.yaw - some.yaw).cos(), torch.ones_like(some.yaw), **TIGHT)
    assert torch.equal(back.label, some.label) and torch.equal(back.track, some.track)


@given(st.data(), lengths)
def test_velocity_is_a_difference_of_positions(data, counts):
    transform, some = data.draw(similarities(len(counts))), data.draw(boxes(counts))
    later = transform.apply(some.center + some.velocity, some.offsets)
    moved = some.transformed(transform)
    torch.testing.assert_close(moved.velocity, later - moved.center, rtol=1e-8, atol=1e-7)


@given(boxes())
def test_corners_are_on_the_faces_of_their_box(some):
    corners = some.corners()
    torch.testing.assert_close(corners.mean(1), some.center, **TIGHT)
    edges = torch.stack(
        [corners[:, 0] - corners[:, 3], corners[:, 0] - corners[:, 1], corners[:, 4] - corners[:, 0]], 1
    )
    # Length along the heading, width to its left, height up.
    torch.testing.assert_close(edges.norm(dim=2), some.size, **TIGHT)
    heading = torch.stack([some.yaw.cos(), some.yaw.sin(), torch.zeros_like(some.yaw)], 1)
    torch.testing.assert_close(edges[:, 0], heading * some.size[:, :1], **TIGHT)
    torch.testing.assert_close(edges[:, 2, 2], some.size[:, 2], **TIGHT)


def test_corners_of_a_known_box():
    turned = car(10, 5, math.pi / 2).corners()[0]
    expected = [[9, 7], [11, 7], [11, 3], [9, 3]]
    torch.testing.assert_close(turned[:4, :2], torch.tensor(expected).float())
    torch.testing.assert_close(turned[4:, :2], torch.tensor(expected).float())
    assert (turned[:4, 2] == -0.75).all() and (turned[4:, 2] == 0.75).all()


def test_containment_of_known_points():
    xyz = torch.tensor([[2.0, 1.0, 0.75], [2.01, 0, 0], [0, 1.01, 0], [0, 0, -0.76], [-1.9, -0.9, -0.7]])
    assert car().contains(xyz).tolist() == [[True, False, False, False, True]]
    assert car().contains(xyz, margin=0.02).all()


@given(st.lists(boxes(), min_size=1, max_size=4))
def test_collate_and_split_round_trip(batches):
    joined = Boxes3D.collate(batches)
    assert joined.batch_size == sum(batch.batch_size for batch in batches)
    parts = joined.split()
    assert [len(part) for part in parts] == [n for batch in batches for n in batch.offsets.diff().tolist()]
    assert_same(Boxes3D.collate(parts), joined)
    assert_same(Boxes3D.collate(batches[0].split()), batches[0])


@given(boxes(), seeds)
def test_selection_keeps_items_apart(some, seed):
    mask = torch.rand(len(some), generator=torch.Generator().manual_seed(seed)) < 0.5
    kept = some.select(mask)
    assert torch.equal(kept.center, some.center[mask])
    assert torch.equal(kept.batch_index, some.batch_index[mask])
    assert kept.batch_size == some.batch_size


def test_no_boxes_are_a_batch_like_any_other():
    none = Boxes3D.empty(3)
    assert len(none) == 0 and none.batch_size == 3
    assert none.transformed(Affine3.identity(3)).corners().shape == (0, 8, 3)
    assert none.contains(torch.zeros(5, 3)).shape == (0, 5)
    assert [len(part) for part in none.split()] == [0, 0, 0]
    assert none.as_tensor().shape == (0, 7)


def test_what_is_not_known_is_marked():
    some = car()
    assert some.velocity.isnan().all() and (some.track == -1).all() and (some.label == 0).all()
    assert some.transformed(Affine3.from_parts(yaw=torch.tensor([1.0]))).velocity.isnan().all()


@pytest.mark.parametrize(
    "linear",
    [
        torch.diag(torch.tensor([2.0, 1.0, 1.0])),  # stretched
        torch.diag(torch.tensor([1.0, 1.0, -1.0])),  # upside down
        torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),  # rolled
        torch.tensor([[1.0, 0.1, 0], [0, 1, 0], [0, 0, 1]]),  # sheared
        torch.zeros(3, 3),
    ],
)
def test_maps_that_leave_no_upright_box_are_refused(linear):
    with pytest.raises(ValueError, match=r"boxes\.transformed takes rotations about z"):
        car().transformed(Affine3(linear[None], torch.zeros(1, 3)))


@given(st.floats(-100, 100))
def test_wrapped_angles_are_the_same_direction(angle):
    wrapped = wrap_angle(torch.tensor([angle]).double())
    assert -math.pi <= float(wrapped) <= math.pi
    assert math.cos(float(wrapped) - angle) == pytest.approx(1, abs=1e-9)


def test_offsets_must_be_offsets():
    with pytest.raises(ValueError, match=r"boxes\.offsets must be a 1-d int64"):
        Boxes3D.make(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1), offsets=torch.zeros(0, dtype=torch.int64))
