"""How each cluster moved from one sweep to the next: votes for its translation, then ICP in both directions.

After Lin & Caesar, "ICP-Flow: LiDAR Scene Flow Estimation with ICP", CVPR 2024: every pair of a point of the cluster
and a point of the target votes for the difference of the two, and iterative closest points starts from the peaks. Other
than there, a cluster is not matched to one other cluster but to what the target sweep holds where the cluster would be,
in both directions: its points ask for their nearest target points, and target points that no other cluster explains ask
for the cluster's. Without the second direction a car that is seen from its side may slide along itself. The last steps
count differences across the lines that the target's points form, seen from above, not along them: there, the pattern of
the beams would say that the object moved with it (or not at all), and another start would end in another place.

Everything happens over the ground: x, y and the height above it. Objects move along the ground, so a motion is a turn
about the vertical and a horizontal shift.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from equilidar.flow.cluster_icp import follow, search
from equilidar.flow.point_grid import PointGrid, closest_two
from equilidar.flow.upright_lines import line_normals


@dataclass(frozen=True)
class RegistrationSettings:
    """How motions are searched, and when one is believed.

    A motion is believed where it brings the points concerned closer to their partners by at least `min_drop` metres on
    average, and by the fraction `gain_base + gain_per_shift * shift + gain_per_range * range` (shift and range in
    metres): beams are far apart far away, and the farther the search, the likelier something fits by chance.

    Attributes:
        far: metres from which a point counts as unexplained, however far it is.
        bin: edge length of the bins of translations, metres.
        peaks: translations that are tried, besides none.
        iterations: of closest points: a third for each translation, the rest for the best.
        gate: metres between partners at first; for the best translation it falls to a third.
        turn_rate: radians per second that objects turn at, as a standard deviation.
        min_drop: see above.
        gain_base: see above.
        gain_per_shift: see above.
        gain_per_range: see above.
        company: metres within which a part may follow another.
        min_follow: fraction by which the other's motion must bring it closer to its partners.
        line_radius: metres around a target point within which its neighbours may form a line, seen from above.
        along: weight of differences along that line, across it being 1.
        unlined: weight of differences to points without one: corners and mirrors tell more than sides do.
    """

    far: float = 0.5
    bin: float = 0.2
    peaks: int = 4
    iterations: int = 12
    gate: float = 0.75
    turn_rate: float = 0.5
    min_drop: float = 0.02
    gain_base: float = 0.075
    gain_per_shift: float = 0.05
    gain_per_range: float = 0.005
    company: float = 1.5
    min_follow: float = 0.1
    line_radius: float = 0.25
    along: float = 0.02
    unlined: float = 0.2

    def __post_init__(self) -> None:
        if min(self.far, self.bin, self.peaks, self.iterations, self.gate, self.turn_rate, self.line_radius) <= 0:
            raise ValueError(
                f"registration: far, bin, peaks, iterations, gate, turn_rate, line_radius must be positive, got {self}"
            )
        if not 0 < min(self.along, self.unlined) <= max(self.along, self.unlined) <= 1:
            raise ValueError(
                f"registration.along and unlined must lie in (0, 1], got along={self.along}, unlined={self.unlined}"
            )
        if min(self.min_drop, self.gain_base, self.gain_per_shift, self.gain_per_range, self.min_follow) < 0:
            raise ValueError(f"registration: gains must not be negative, got {self}")


@dataclass(slots=True)
class Motions:
    """The motion of each of C clusters: a turn about the middle of its box, then a shift.

    Attributes:
        moving: (C,) whether a motion is believed; where not, turn and shift are zero.
        turn: (C,) radians about z.
        shift: (C, 2) metres.
        middle: (C, 2) metres.
        cost: (C,) metres to the nearest partner after the motion, mean over the points concerned; none counts as `far`.
        lost: (C,) fraction of the cluster's points that have no partner after the motion.
    """

    moving: Bool[np.ndarray, " C"]
    turn: Float64[np.ndarray, " C"]
    shift: Float64[np.ndarray, "C 2"]
    middle: Float64[np.ndarray, "C 2"]
    cost: Float64[np.ndarray, " C"]
    lost: Float64[np.ndarray, " C"]

    def displacements(
        self, xy: Float64[np.ndarray, "N 2"], members: Int64[np.ndarray, " N"]
    ) -> Float64[np.ndarray, "N 2"]:
        """Return how far each point moves with its cluster; points of none (-1) stay."""
        moved = np.zeros_like(xy)
        rows = np.flatnonzero(members >= 0)
        who = members[rows]
        cos, sin = np.cos(self.turn[who]), np.sin(self.turn[who])
        x, y = (xy[rows] - self.middle[who]).T
        moved[rows] = np.stack([cos * x - sin * y - x, sin * x + cos * y - y], 1) + self.shift[who]
        return moved


def register(
    source: Float64[np.ndarray, "N 3"],
    labels: Int64[np.ndarray, " N"],
    held: PointGrid,
    target: PointGrid,
    may_move: Bool[np.ndarray, " C"],
    may_follow: Bool[np.ndarray, " C"],
    reach: float,
    gap: float,
    least: float,
    settings: RegistrationSettings,
) -> Motions:
    """Find the motion of each cluster.

    Args:
        source: x, y, height of the source points after the ego motion, metres.
        labels: cluster of each, -1 for points of none; each cluster has at least one.
        held: the same, as a grid.
        target: x, y, height of the target points.
        may_move: clusters whose motion is searched.
        may_follow: clusters that may follow a moving one beside them.
        reach: the longest shift, metres.
        gap: seconds between the sweeps.
        least: shifts up to this are none, metres.
        settings: see there.
    """
    number = len(may_move)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(number + 1))
    clusters = np.ascontiguousarray(source[order])
    own = clusters[starts[0] :, :2]
    box = np.concatenate(
        [extreme.reduceat(own, starts[:-1] - starts[0]) for extreme in (np.minimum, np.maximum)], axis=1
    )
    first, owner, second = closest_two(target.points, settings.far, held)
    result = np.zeros((number, 7))
    parts = (clusters, starts, box, held, target, first, owner, second)
    lines = line_normals(target, settings.line_radius), float(settings.along), float(settings.unlined)
    options = (reach, settings.turn_rate * gap, settings.bin, settings.peaks, settings.iterations, settings.gate)
    search(*parts, may_move, *options, settings.far, lines, result)
    middle = 0.5 * (box[:, :2] + box[:, 2:])
    rest, cost, shift = result[:, 3], result[:, 4], np.hypot(result[:, 1], result[:, 2])
    gain = settings.gain_base + settings.gain_per_shift * shift + settings.gain_per_range * np.hypot(*middle.T)
    moving = (rest - cost > np.maximum(settings.min_drop, gain * rest)) & (shift > least)
    for _ in range(2):
        moving = follow(*parts, moving, may_follow, settings.company, settings.min_follow, settings.far, result)
    result[~moving, :3] = 0.0
    result[~moving, 4] = result[~moving, 3]
    return Motions(moving, result[:, 0], result[:, 1:3], middle, result[:, 4], result[:, 6])
