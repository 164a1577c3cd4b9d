import math

import pytest
import torch

from equilidar.augment.group import PARTS, SpatialGroup, identity_draw, with_parts

SEEDS = torch.arange(4000)


def test_draws_stay_in_their_ranges_and_fill_them():
    draw = SpatialGroup().sample(SEEDS, 0)
    for value, low, high in (
        (draw.yaw, -math.pi / 2, math.pi / 2),
        (draw.scale, 0.95, 1.05),
        (draw.translation, 0.0, 0.2),
    ):
        width = high - low
        assert value.min() >= low - 1e-6 and value.max() <= high + 1e-6
        assert value.min() < low + 0.01 * width and value.max() > high - 0.01 * width
    assert abs(draw.flip_y.float().mean() - 0.5) < 0.03


def test_parameters_are_drawn_independently():
    draw = SpatialGroup().sample(SEEDS, 0)
    columns = torch.stack([draw.yaw, draw.scale, draw.flip_y.float(), *draw.translation.T])
    off_diagonal = torch.corrcoef(columns) - torch.eye(6)
    assert off_diagonal.abs().max() < 0.08


def test_a_sample_draws_the_same_in_any_batch():
    group = SpatialGroup()
    whole, part = group.sample(SEEDS[:8], 1), group.sample(SEEDS[[5, 2]], 1)
    assert whole.affine()[[5, 2]].linear.equal(part.affine().linear)
    assert whole.translation[[5, 2]].equal(part.translation)


def test_streams_and_seeds_draw_differently():
    group = SpatialGroup()
    a, b = group.sample(SEEDS, 0), group.sample(SEEDS, 1)
    assert not a.yaw.eq(b.yaw).any()
    assert len(a.yaw.unique()) > 3900


@pytest.mark.parametrize("part", PARTS)
def test_with_parts_keeps_one_part_and_leaves_the_rest_unmoved(part: str):
    draw = SpatialGroup(flip_probability=1.0).sample(SEEDS[:4], 0)
    kept, unmoved = with_parts(draw, [part]), identity_draw(draw.yaw)
    for name in PARTS:
        field = {"flip": "flip_y"}.get(name, name)
        expected = draw if name == part else unmoved
        assert getattr(kept, field).equal(getattr(expected, field))
    assert not kept.affine().matrix().equal(torch.eye(4).repeat(4, 1, 1))


def test_with_no_parts_nothing_moves():
    draw = with_parts(SpatialGroup().sample(SEEDS[:4], 0), ())
    assert draw.affine().matrix().equal(torch.eye(4).repeat(4, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"yaw": (1.0, -1.0)}, "group.yaw"),
        ({"scale": (-1.0, 1.0)}, "group.scale must be positive"),
        ({"flip_probability": 1.5}, "flip_probability"),
    ],
)
def test_impossible_ranges_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SpatialGroup(**arguments)
