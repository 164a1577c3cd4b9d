import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.structures import Affine3
from equilidar.structures.offsets import from_lengths

from .strategies import affine_maps, clouds, lengths, similarities, uniform

TIGHT = {"rtol": 1e-9, "atol": 1e-8}


@given(st.data(), lengths)
def test_composition_applies_the_inner_map_first(data, counts):
    outer, inner = data.draw(affine_maps(len(counts))), data.draw(affine_maps(len(counts)))
    cloud = data.draw(clouds(counts))
    expected = outer.apply(inner.apply(cloud.xyz, cloud.offsets), cloud.offsets)
    torch.testing.assert_close((outer @ inner).apply(cloud.xyz, cloud.offsets), expected, **TIGHT)
    torch.testing.assert_close((outer @ inner).matrix(), outer.matrix() @ inner.matrix(), **TIGHT)


@given(st.data(), lengths)
def test_composition_is_associative(data, counts):
    a, b, c = (data.draw(affine_maps(len(counts))) for _ in range(3))
    torch.testing.assert_close(((a @ b) @ c).matrix(), (a @ (b @ c)).matrix(), **TIGHT)


@given(st.data(), lengths)
def test_inverse_undoes_from_both_sides(data, counts):
    b_T_a = data.draw(affine_maps(len(counts)))
    identity = Affine3.identity(len(counts), dtype=torch.float64).matrix()
    torch.testing.assert_close((b_T_a @ b_T_a.inverse()).matrix(), identity, **TIGHT)
    torch.testing.assert_close((b_T_a.inverse() @ b_T_a).matrix(), identity, **TIGHT)


@given(st.data(), lengths)
def test_apply_is_the_homogeneous_product(data, counts):
    b_T_a, cloud = data.draw(affine_maps(len(counts))), data.draw(clouds(counts))
    moved = b_T_a.apply(cloud.xyz, cloud.offsets)
    for row, item in enumerate(cloud.batch_index.tolist()):
        homogeneous = b_T_a.matrix()[item] @ torch.cat([cloud.xyz[row], cloud.xyz.new_ones(1)])
        torch.testing.assert_close(moved[row], homogeneous[:3], **TIGHT)


@given(st.data(), lengths)
def test_vectors_are_differences_of_points(data, counts):
    b_T_a, cloud = data.draw(affine_maps(len(counts))), data.draw(clouds(counts))
    step = uniform(torch.Generator().manual_seed(0), -3, 3, len(cloud.xyz), 3)
    expected = b_T_a.apply(cloud.xyz + step, cloud.offsets) - b_T_a.apply(cloud.xyz, cloud.offsets)
    torch.testing.assert_close(b_T_a.apply_vectors(step, cloud.offsets), expected, **TIGHT)


@given(similarities())
def test_similarities_are_told_and_measured(transform):
    assert transform.is_similarity()
    stretched = Affine3(transform.linear * torch.tensor([1.0, 1.0, 1.2]).double(), transform.translation)
    assert not stretched.is_similarity() and not stretched.is_rigid()
    axes = transform.apply_vectors(
        torch.eye(3).double().repeat(transform.batch_size, 1), from_lengths([3] * transform.batch_size)
    )
    torch.testing.assert_close(axes.norm(dim=1), transform.scales().repeat_interleave(3), **TIGHT)


@given(st.floats(-10, 10), st.floats(0.2, 5), st.booleans())
def test_only_motion_without_scale_and_mirror_is_rigid(yaw, scale, flip):
    transform = Affine3.from_parts(
        yaw=torch.tensor([yaw]).double(), scale=torch.tensor([scale]).double(), flip_y=torch.tensor([flip])
    )
    assert transform.is_rigid() == (not flip and abs(scale**3 - 1) <= 3e-4)


def test_parts_act_in_their_order():
    """Mirror y first, then scale, then a quarter turn, then the shift."""
    transform = Affine3.from_parts(
        yaw=torch.tensor([math.pi / 2], dtype=torch.float64),
        scale=torch.tensor([2.0]).double(),
        flip_y=torch.tensor([True]),
        translation=torch.tensor([[10.0, 20.0, 30.0]]).double(),
    )
    moved = transform.apply(torch.tensor([[1.0, 3.0, 5.0]]).double(), from_lengths([1]))
    # (1, 3, 5) -> (1, -3, 5) -> (2, -6, 10) -> (6, 2, 10) -> (16, 22, 40)
    torch.testing.assert_close(moved, torch.tensor([[16.0, 22.0, 40.0]]).double(), **TIGHT)


@given(st.data(), lengths)
def test_yaw_follows_the_heading(data, counts):
    transform = data.draw(similarities(len(counts)))
    yaw = uniform(torch.Generator().manual_seed(1), -9, 9, sum(counts))
    heading = torch.stack([yaw.cos(), yaw.sin(), torch.zeros_like(yaw)], 1)
    offsets = from_lengths(counts)
    moved, turned = transform.apply_vectors(heading, offsets), transform.yaw_of(yaw, offsets)
    assert ((turned >= -math.pi) & (turned <= math.pi)).all()
    expected = moved[:, :2] / moved[:, :2].norm(dim=1, keepdim=True)
    torch.testing.assert_close(torch.stack([turned.cos(), turned.sin()], 1), expected, **TIGHT)


@given(st.data())
def test_a_point_moves_alone_as_with_its_sweep(data):
    """Bit by bit: else the voxel of a point would depend on the batch."""
    transform, cloud = data.draw(similarities(1)), data.draw(clouds([5]))
    transform = Affine3(transform.linear.float(), transform.translation.float())
    xyz = cloud.xyz.float()
    alone = torch.cat([transform.apply(row[None], from_lengths([1])) for row in xyz])
    assert torch.equal(transform.apply(xyz, cloud.offsets), alone)


@given(st.data())
def test_matrix_and_parts_round_trip(data):
    maps = [data.draw(affine_maps(size)) for size in (1, 2)]
    joined = Affine3.cat(maps)
    assert joined.batch_size == 3
    torch.testing.assert_close(Affine3.from_matrix(joined.matrix()).matrix(), joined.matrix(), rtol=0, atol=0)
    assert torch.equal(joined[1:].matrix(), maps[1].matrix())


def test_from_matrix_does_not_share_memory():
    matrix = torch.eye(4)[None].repeat(1, 1, 1)
    transform = Affine3.from_matrix(matrix)
    matrix[:] = 7
    assert torch.equal(transform.matrix(), torch.eye(4)[None])


def test_errors_say_what_was_got():
    two, three = Affine3.identity(2), Affine3.identity(3)
    with pytest.raises(ValueError, match="2 transforms with 3"):
        two @ three
    with pytest.raises(ValueError, match="2 transforms cannot move a batch of 3"):
        two.apply(torch.zeros(3, 3), from_lengths([1, 1, 1]))
    with pytest.raises(RuntimeError, match="singular"):
        Affine3(torch.zeros(1, 3, 3), torch.zeros(1, 3)).inverse()
