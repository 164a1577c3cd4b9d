"""Pairs without flow, and poses the wrong way round."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.flow.pose_check import check_poses, pair_problem, residuals, unknown_flow, widened
from equilidar.structures import Sweep, SweepPair, SweepPairBatch

from .pairs import CONTRACT, moved, rigid_matrix, sweep_pair


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
    assert check_poses([right]) is None
    assert pair_problem(right) is None
    wrong = pair_of(seed, yaw, forward, torch.linalg.inv(right.target_T_source))
    assert pair_problem(wrong) is None  # of a single pair nothing is said
    with pytest.raises(ValueError, match=r"the poses are the wrong way round: .*check_poses=false"):
        check_poses([wrong])


def test_of_a_sensor_that_stands_it_is_said_that_its_poses_tell_nothing():
    said = check_poses([pair_of(forward=0.0, yaw=0.0)])
    assert said is not None and "the sensor is too slow, it moves by at most 0 cm" in said
    nothing = check_poses([])
    assert nothing is not None and "too little stands upright" in nothing
    flat = street(0)[:5200]
    assert residuals(sweep_pair(flat, flat, rigid_matrix(0, (1.0, 0, 0)))) is None


class Drive:
    """A slow drive along x, each sweep noisy, as readers of sequences give it."""

    def __init__(self, number: int, told: float) -> None:
        self.sweep_keys = [f"log/{row}" for row in range(number)]
        self.told = told

    def sweep(self, index: int) -> Sweep:
        cloud = street(0)
        noise = 0.05 * torch.randn(cloud.shape, generator=torch.Generator().manual_seed(index))
        xyz = cloud + noise - torch.tensor([0.07 * index, 0.0, 0.0])
        pose = rigid_matrix(0.0, (self.told * index, 0.0, 0.0))
        return Sweep(xyz, torch.zeros(len(xyz), 1), CONTRACT, self.sweep_keys[index], 0.1 * index, pose)

    def sweep_runs(self) -> list[range]:
        return [range(len(self.sweep_keys))]

    def pair(self, index: int) -> SweepPair:
        first, last = self.sweep(index), self.sweep(index + 1)
        return SweepPair(first, last, rigid_matrix(0.0, (-self.told, 0.0, 0.0)))


def test_a_slow_drive_is_told_by_sweeps_farther_ahead():
    right, wrong = Drive(12, 0.07), Drive(12, -0.07)
    said = check_poses([wrong.pair(0), wrong.pair(2)])
    assert said is not None and said.startswith("cannot tell whether the poses are the right way round")
    wide = widened(right.pair(0), right)
    assert wide.target.key == "log/8" and wide.target_T_source[0, 3].item() == pytest.approx(-0.56)
    assert widened(right.pair(9), right).target.key == "log/11"
    assert check_poses([widened(right.pair(row), right) for row in (0, 2)]) is None
    with pytest.raises(ValueError, match="the poses are the wrong way round"):
        check_poses([widened(wrong.pair(row), wrong) for row in (0, 2)])


def test_pairs_that_cannot_or_need_not_be_widened_stay():
    slow = pair_of(forward=0.01)
    assert widened(slow, [slow]) is slow and widened(slow, Drive(3, 0.07)) is slow
    fast = Drive(12, 0.6)
    pair = fast.pair(0)
    assert widened(pair, fast) is pair


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
