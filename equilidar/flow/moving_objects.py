"""Objects among the squares that a flow network calls moving: neighbours whose motions agree."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.flow.clustered_points import cluster_sum
from equilidar.flow.flow_matching import cells_at_shifts, peak_shift
from equilidar.flow.flow_network import FlowAnswer
from equilidar.structures.host_sync import allowed_sync


@dataclass(frozen=True)
class ObjectSettings:
    """Which squares are one object.

    Attributes:
        candidate: probability of moving from which a square may be part of an object; one of them must pass the
            estimator's threshold.
        steps: squares to each side that are neighbours.
        apart: metres by which the motions of neighbours may differ.
        apart_growth: the same for each metre of motion.
    """

    candidate: float = 0.25
    steps: int = 2
    apart: float = 0.4
    apart_growth: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.candidate < 1 or self.steps < 1 or min(self.apart, self.apart_growth) < 0:
            raise ValueError(f"flow.refine.objects: candidate within 0 and 1, steps from 1, apart from 0, got {self}")


def moving_objects(answer: FlowAnswer, threshold: float, settings: ObjectSettings) -> tuple[Int64[Tensor, " V"], int]:
    """Number the objects, rising with the batch's items.

    Args:
        answer: of the network.
        threshold: probability from which a square moves.
        settings: see there.

    Returns:
        The object of each square, -1 for none, and how many there are.
    """
    probability = answer.moves.sigmoid()
    taken = probability > settings.candidate
    num = len(taken)
    if num == 0:
        return answer.rows.new_zeros(0), 0
    beside = cells_at_shifts(answer.squares, answer.squares, settings.steps)
    known = torch.cat([taken, taken.new_zeros(1)])[beside] & taken[:, None]
    motion = torch.cat([answer.motion, answer.motion.new_zeros(1, 3)])
    allowed = settings.apart + settings.apart_growth * answer.motion.norm(dim=1)
    known &= (motion[beside] - answer.motion[:, None]).norm(dim=2) <= allowed[:, None]
    root = _lowest_connected(torch.where(known, beside, torch.arange(num, device=beside.device)[:, None]))
    surest = torch.zeros_like(probability).scatter_reduce(0, root, probability, "amax")
    kept = taken & (surest[root] > threshold)
    with allowed_sync("number of moving objects"):
        roots, number = root[kept].unique(return_inverse=True)
    found = torch.full_like(root, -1)
    found[kept] = number
    return found, len(roots)


def _lowest_connected(beside: Int64[Tensor, "V K"]) -> Int64[Tensor, " V"]:
    """Return the lowest row that each row is connected to, in about as many rounds as the logarithm of the way."""
    root = torch.arange(len(beside), device=beside.device)
    while True:
        lower = root[beside].amin(1)
        # Roots hear of it, too: whole trees are grafted at once.
        grafted = root.scatter_reduce(0, root, lower, "amin")
        grafted = torch.minimum(grafted, lower)
        grafted = grafted[grafted]
        with allowed_sync("are all connected"):
            if bool((grafted == root).all()):
                return root
        root = grafted


def mean_motion(answer: FlowAnswer, objects: Int64[Tensor, " V"], num: int) -> Float[Tensor, "C 3"]:
    """Return the mean motion of each object's squares, weighted by their probabilities of moving."""
    weight = answer.moves.sigmoid()[:, None]
    sums = cluster_sum(torch.cat([answer.motion * weight, weight], 1), objects, num)
    return sums[:, :3] / sums[:, 3:].clamp_min(1e-6)


def likely_shifts(answer: FlowAnswer, objects: Int64[Tensor, " V"], num: int) -> Float[Tensor, "C 2"]:
    """Return the shift that the squares of each object together find likeliest, metres."""
    votes = cluster_sum(answer.shifts.log_softmax(1), objects, num)
    return peak_shift(votes) * answer.squares.grid.voxel_size[0] * answer.squares.stride[2]
