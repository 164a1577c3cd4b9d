"""Tells pairs that no flow can be found for, and ego motions that are the wrong way round, before hours are spent."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from equilidar.flow.grid_flow_multi import SweepSource
from equilidar.ops.neighbors import nearest
from equilidar.structures import Affine3, FlowField, SweepPair, SweepPairBatch

FEWEST_POINTS = 100
LONGEST_GAP = 1.0  # seconds; at 10 m/s an object is then two of its lengths away
_REACH = 1.0  # metres; a point without a neighbour within is as good as this far off
_CELL, _UPRIGHT = 1.0, 0.5  # metres: what stands is told by the height of what is in a cell
_MOST = 3000  # points that are compared
_OVERLAP = 0.05  # of these must have a neighbour
_BETTER = 0.6  # of the residual, by which another motion has to be better
_MOTION = 0.1  # metres by which two motions must differ to be told apart
_FAR = 0.5  # metres of the sensor's way that tell its direction for sure
_TURNS = (2, 4, 8)  # times the gap: how far ahead a slow drive is looked at


@dataclass(frozen=True)
class Residuals:
    """Mean distance from standing source points to the nearest target point, at most 1 m, after a motion; metres.

    Attributes:
        given: by the ego motion as it is.
        inverted: by its inverse.
        overlap: fraction of the points that the given motion or none at all brings within 1 m of one.
        differ: metres by which the given motion and its inverse take those points apart.
    """

    given: float
    inverted: float
    overlap: float
    differ: float


def pair_problem(pair: SweepPair) -> str | None:
    """Return why no flow can be found for a pair; None where nothing speaks against it."""
    seconds = pair.target.timestamp - pair.source.timestamp
    for name, sweep in (("source", pair.source), ("target", pair.target)):
        if len(sweep.xyz) < FEWEST_POINTS:
            return f"{name} sweep has {len(sweep.xyz)} points, fewer than {FEWEST_POINTS}"
    if seconds <= 0:
        return f"the target is {-seconds:.2f} s before the source"
    if seconds > LONGEST_GAP:
        return f"{seconds:.1f} s lie between the sweeps, more than {LONGEST_GAP:g} s"
    if not torch.isfinite(pair.target_T_source).all():
        return "its ego motion is not finite"
    found = residuals(pair)
    if found is not None and found.overlap < _OVERLAP:
        return f"the sweeps do not overlap: {100 * found.overlap:.0f} % of the points have a neighbour within 1 m"
    return None


def unknown_flow(batch: SweepPairBatch) -> FlowField:
    """Return the ego motion's flow, valid nowhere: what stands for pairs with a problem."""
    xyz = batch.source.xyz
    flow = torch.nan_to_num(batch.target_T_source.apply(xyz, batch.source.offsets) - xyz)
    return FlowField(flow, torch.zeros_like(xyz[:, 0], dtype=torch.bool), torch.zeros_like(xyz[:, 0]))


def residuals(pair: SweepPair) -> Residuals | None:
    """Compare a pair's ego motion with its inverse; None where too little stands upright to tell."""
    source, target = _standing(pair.source.xyz)[:_MOST], _standing(pair.target.xyz)
    if len(source) < FEWEST_POINTS or len(target) < FEWEST_POINTS:
        return None
    given = Affine3.from_matrix(pair.target_T_source[None].float())
    offsets = torch.tensor([0, len(source)])
    moved, back = given.apply(source, offsets), given.inverse().apply(source, offsets)
    distances = [_distances(xyz, target) for xyz in (moved, back, source)]
    overlap = max(float((one < _REACH).float().mean()) for one in distances)
    mean = [float(one.mean()) for one in distances]
    return Residuals(mean[0], mean[1], overlap, float((moved - back).norm(dim=1).mean()))


def check_poses(pairs: Iterable[SweepPair]) -> str | None:
    """Refuse ego motions that are the wrong way round.

    Args:
        pairs: a few of a dataset.

    Returns:
        Why it cannot be told, in words for the user; None where the ego motions clearly fit better than their inverses.

    Raises:
        ValueError: over all of them, what stands fits clearly better by the inverted motions.
    """
    found = [one for pair in pairs if pair_problem(pair) is None and (one := residuals(pair)) is not None]
    telling = [one for one in found if one.differ > _MOTION]
    if not found:
        return "cannot tell whether the poses are the right way round: too little stands upright in the pairs looked at"
    if not telling:
        most = 100 * max(one.differ for one in found) / 2  # there and back: a motion and its inverse differ by twice it
        return (
            "cannot tell whether the poses are the right way round: the sensor is too slow, "
            f"it moves by at most {most:.0f} cm between the sweeps of {len(found)} pairs"
        )
    given = sum(one.given for one in telling) / len(telling)
    inverted = sum(one.inverted for one in telling) / len(telling)
    if inverted < _BETTER * given:
        raise ValueError(
            f"the poses are the wrong way round: after the ego motion what stands is {given:.2f} m from the next sweep "
            f"on average of {len(telling)} pairs, after the inverted one {inverted:.2f} m; give poses world_T_sensor "
            "(check_poses=false takes them as they are)"
        )
    if given < _BETTER * inverted:
        return None
    slow = 0.5 * sum(one.differ for one in telling) / len(telling)
    return (
        "cannot tell whether the poses are the right way round: after the ego motion what stands is "
        f"{given:.2f} m from the next sweep on average of {len(telling)} pairs, after the inverted {inverted:.2f} m; "
        f"the sensor moves by {slow:.2f} m between them"
    )


def widened(pair: SweepPair, dataset: object) -> SweepPair:
    """Return a pair that tells the direction of a slow drive: the same source, and a sweep far enough ahead.

    Args:
        pair: of the dataset.
        dataset: that it comes from; one that does not give its sweeps one by one leaves the pair as it is, and so does
            a pair between which the sensor moves half a metre, or sweeps without poses.
    """
    if not isinstance(dataset, SweepSource) or _way(pair.target_T_source) >= _FAR:
        return pair
    place = {key: index for index, key in enumerate(dataset.sweep_keys)}
    first, last = place.get(pair.source.key), place.get(pair.target.key)
    if first is None or last is None or last <= first:
        return pair
    run = next(run for run in dataset.sweep_runs() if first in run)
    wide = pair
    for turns in _TURNS:
        ahead = first + turns * (last - first)
        if ahead not in run:
            break
        target = dataset.sweep(ahead)
        start, end = pair.source.world_T_sensor, target.world_T_sensor
        if start is None or end is None or target.timestamp - pair.source.timestamp > LONGEST_GAP:
            break
        wide = SweepPair(pair.source, target, torch.linalg.inv(end) @ start)
        if _way(wide.target_T_source) >= _FAR:
            break
    return wide


def _way(motion: Float64[Tensor, "4 4"]) -> float:
    return float(motion[:3, 3].norm())


def _standing(xyz: Float[Tensor, "N 3"]) -> Float[Tensor, "K 3"]:
    """Return points of cells that are occupied over some height, in an order that is as good as random.

    Rings on the ground look the same wherever the sensor is, so they would speak for no motion.
    """
    if not len(xyz):
        return xyz
    x, y = (xyz[:, :2] / _CELL).floor().long().unbind(1)
    known, row = (x * (1 << 32) + y).unique(return_inverse=True)
    num = len(known)
    low = xyz.new_full((num,), torch.inf).scatter_reduce(0, row, xyz[:, 2], "amin")
    high = xyz.new_full((num,), -torch.inf).scatter_reduce(0, row, xyz[:, 2], "amax")
    kept = xyz[((high - low) > _UPRIGHT)[row]]
    return kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))]


def _distances(xyz: Float[Tensor, "N 3"], target: Float[Tensor, "M 3"]) -> Float[Tensor, " N"]:
    row, distance = nearest(xyz, torch.tensor([0, len(xyz)]), target, torch.tensor([0, len(target)]), _REACH)
    return torch.where(row >= 0, distance, _REACH)
