"""Where each cluster may have gone: all horizontal shifts within reach, judged by a field of distances.

Gradient descent alone stops at the next surface; a car at 15 m/s is 1.5 m away from where it was.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.flow.clustered_points import ClusteredPoints
from equilidar.flow.scanned_surface import ScannedSurface, shares
from equilidar.ops.distance_transform import sample_field
from equilidar.structures import offsets as batch_offsets

_MAX_SAMPLES = 1 << 21  # read at once


@dataclass(frozen=True)
class SearchSettings:
    """How far and how finely is searched.

    Attributes:
        max_speed: metres per second.
        max_reach: metres that a shift is no longer than, however long the time between the sweeps.
        step: metres between shifts; more where reach is long (no more than `max_steps` to a side).
        max_steps: see `step`.
        samples: points of a cluster that are looked at.
        prior: what a shift of full reach must gain over none, as a part of the cap on distances.
    """

    max_speed: float = 25.0
    max_reach: float = 10.0
    step: float = 0.25
    max_steps: int = 16
    samples: int = 48
    prior: float = 0.05

    def __post_init__(self) -> None:
        if min(self.max_speed, self.max_reach, self.step, self.max_steps, self.samples) <= 0 or self.prior < 0:
            raise ValueError(f"search settings must be positive, got {self}")

    def reach(self, gap: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the longest shift within a time, metres."""
        return (self.max_speed * gap).clamp_max(self.max_reach)


def shifts_within(reach: float, step: float, device: torch.device | str = "cpu") -> Float[Tensor, "H 3"]:
    """Return horizontal shifts on a square lattice, shortest first, no shift being the first.

    Args:
        reach: the longest, metres.
        step: spacing, metres.
        device: where they are to be.
    """
    most = int(reach / step)
    axis = torch.arange(-most, most + 1, device=device) * step
    lattice = torch.cartesian_prod(axis, axis, torch.zeros(1, device=device))
    length = lattice.norm(dim=1)
    lattice, length = lattice[length <= reach + 1e-6], length[length <= reach + 1e-6]
    return lattice[length.argsort(stable=True)]


def search_shifts(
    points: ClusteredPoints, views: list[ScannedSurface], gap: Float[Tensor, " B"], settings: SearchSettings
) -> Float[Tensor, "C 3"]:
    """Return the shift that brings each cluster's points nearest to the surfaces of the views.

    Args:
        points: clusters.
        views: surfaces, each at its own time.
        gap: seconds from source to target.
        settings: see there.
    """
    reach = settings.reach(gap)
    longest = float(reach.max())
    shifts = shifts_within(longest, max(settings.step, longest / settings.max_steps), points.xyz.device)
    length = shifts.norm(dim=1)
    sizes = points.sizes
    place = torch.arange(settings.samples, device=sizes.device) * sizes[:, None] // settings.samples
    samples = points.xyz[points.starts[:, None] + place]
    per_chunk = max(1, _MAX_SAMPLES // (len(shifts) * settings.samples))
    best = []
    for first in range(0, points.num_clusters, per_chunk):
        chunk = slice(first, first + per_chunk)
        item = points.item[chunk]
        cost = settings.prior * length / reach[item, None].clamp_min(1e-6)
        for view, share in zip(views, shares(views), strict=True):
            cost = cost + share[item, None] * _distances(samples[chunk], shifts, item, view)
        cost = torch.where(length <= reach[item, None] + 1e-6, cost, torch.inf)
        best.append(cost.argmin(1))
    return shifts[torch.cat(best)]


def _distances(
    samples: Float[Tensor, "C K 3"], shifts: Float[Tensor, "H 3"], item: Int64[Tensor, " C"], view: ScannedSurface
) -> Float[Tensor, "C H"]:
    """Return mean distances over the cap."""
    shape = len(samples), len(shifts), samples.shape[1]
    at = samples[:, None] + (shifts * view.ratio[item, None, None])[:, :, None]
    lengths = torch.bincount(item, minlength=len(view.field)) * shape[1] * shape[2]
    read = sample_field(view.field, view.grid, at.view(-1, 3), batch_offsets.from_lengths(lengths))
    return read.view(shape).mean(2) / view.max_distance
