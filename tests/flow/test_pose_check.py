"""Pairs without flow, and poses the wrong way round."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.flow.pose_check import check_poses, pair_problem, residuals, unknown_flow
from equilidar.structures import SweepPair, SweepPairBatch

from .pairs import moved, rigid_matrix, sweep_pair


def street(seed: int) -> torch.Tensor:
    """Rings on the ground around the sensor, and posts and walls, which stand."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.linspace(0, 6.28, 400)
    rings = [torch.stack([r * angle.cos(), r * angle.sin(), torch.full_like(angle, -1.7)], 1) for r in range(4, 30, 2)]
    places = 60 * torch.rand(80, 2, generator=generator) - 30
    posts = torch.cat([places.repeat_interleave(20, 0), torch.rand(1600, 1, generator=generator) * 3 - 1.7], 1)
    return torch.cat([*rings, posts])


def pair_of(seed: int = 0, yaw: float = 0.03, forward: float = 1.2, given: torch.Tensor | None = None) -> SweepPair:
    motion = rigid_matrix(yaw, (-forward, 0.0, 0.0))
    cloud = street(seed)
    return sweep_pair(cloud, moved(cloud, motion), motion if given is None else given, f"log/{seed}")


@given(st.integers(0, 100), st.floats(-0.1, 0.1), st.floats(0.5, 2.5))
@settings(max_examples=20, deadline=None)
def test_poses_the_wrong_way_round_are_told_and_right_ones_pass(seed: int, yaw: float, forward: float):
    right = pair_of(seed, yaw, forward)
    check_poses([right])
    assert pair_problem(right) is None
    wrong = pair_of(seed, yaw, forward, torch.linalg.inv(right.target_T_source))
    assert pair_problem(wrong) is None  # of a single pair nothing is said
    with pytest.raises(ValueError, match=r"the poses are the wrong way round: .*check_poses=false"):
        check_poses([wrong])


def test_a_sensor_that_stands_says_nothing_of_its_poses():
    check_poses([pair_of(forward=0.0, yaw=0.0)])
    check_poses([])
    flat = street(0)[:5200]
    assert residuals(sweep_pair(flat, flat, rigid_matrix(0, (1.0, 0, 0)))) is None


def test_one_odd_pair_among_right_ones_is_not_the_poses():
    odd = pair_of(3, given=torch.linalg.inv(pair_of(3).target_T_source))
    check_poses([pair_of(0), pair_of(1), odd, pair_of(2), pair_of(4)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("empty source", "source sweep has 0 points, fewer than 100"),
        ("empty target", "target sweep has 0 points, fewer than 100"),
        ("few points", "source sweep has 99 points"),
        ("backwards", "the target is 0.10 s before the source"),
        ("gap", "5.0 s lie between the sweeps, more than 1 s"),
        ("pose", "its ego motion is not finite"),
        ("apart", "the sweeps do not overlap: 0 % of the points"),
    ],
)
def test_pairs_that_no_flow_can_be_found_for(change: str, said: str):
    pair = pair_of()
    if change == "empty source":
        pair.source.xyz = pair.source.xyz[:0]
    elif change == "empty target":
        pair.target.xyz = pair.target.xyz[:0]
    elif change == "few points":
        pair.source.xyz = pair.source.xyz[:99]
    elif change == "backwards":
        pair.target.timestamp = -0.1
    elif change == "gap":
        pair.target.timestamp = 5.0
    elif change == "pose":
        pair.target_T_source[0, 3] = float("nan")
    else:
        pair.target.xyz = pair.target.xyz + torch.tensor([500.0, 0.0, 0.0])
    problem = pair_problem(pair)
    assert problem is not None and said in problem
    check_poses([pair])  # says nothing of pairs that have another problem


def test_what_stands_for_unknown_flow_is_valid_nowhere_and_finite():
    pair = pair_of()
    pair.target_T_source[0, 3] = float("nan")
    field = unknown_flow(SweepPairBatch.collate([pair]))
    assert field.flow.isfinite().all() and not field.valid.any() and field.confidence.eq(0).all()
