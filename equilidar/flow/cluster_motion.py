"""One rigid motion for each cluster: a turn about the vertical through its center, and a shift."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.flow.clustered_points import cluster_sum


@dataclass(slots=True)
class ClusterMotion:
    """What stands on the ground turns about the vertical only.

    Attributes:
        center: (C, 3) what each cluster turns about, metres.
        yaw: (C,) radians, counter-clockwise.
        shift: (C, 3) metres.
    """

    center: Float[Tensor, "C 3"]
    yaw: Float[Tensor, " C"]
    shift: Float[Tensor, "C 3"]

    @classmethod
    def rest(cls, center: Float[Tensor, "C 3"]) -> "ClusterMotion":
        """Return no motion."""
        return cls(center, torch.zeros_like(center[:, 0]), torch.zeros_like(center))

    @classmethod
    def fit(
        cls, xyz: Float[Tensor, "N 3"], flow: Float[Tensor, "N 3"], cluster: Int64[Tensor, " N"],
        center: Float[Tensor, "C 3"],
    ) -> "ClusterMotion":  # fmt: skip
        """Return the motions nearest to a flow, in the sense of least squares (Kabsch in the plane).

        Args:
            xyz: points, metres.
            flow: of each point.
            cluster: of each point.
            center: the means of the clusters' points.
        """
        num_clusters = len(center)
        count = cluster_sum(torch.ones_like(xyz[:, 0]), cluster, num_clusters).clamp_min(1)
        shift = cluster_sum(flow, cluster, num_clusters) / count[:, None]
        before = xyz - center[cluster]
        after = before + flow - shift[cluster]
        cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
        dot = before[:, 0] * after[:, 0] + before[:, 1] * after[:, 1]
        sums = cluster_sum(torch.stack([cross, dot], 1), cluster, num_clusters)
        # A point or a pole has no heading: the summand lets it not turn.
        return cls(center, torch.atan2(sums[:, 0], sums[:, 1] + 1e-3), shift)

    def apply(
        self, xyz: Float[Tensor, "N 3"], cluster: Int64[Tensor, " N"], ratio: Float[Tensor, " C"] | None = None
    ) -> Float[Tensor, "N 3"]:
        """Move points by their cluster's motion, or by a part of it."""
        share = torch.ones_like(self.yaw) if ratio is None else ratio
        yaw = (self.yaw * share)[cluster]
        x, y, z = (xyz - self.center[cluster]).unbind(1)
        cos, sin = yaw.cos(), yaw.sin()
        turned = torch.stack([cos * x - sin * y, sin * x + cos * y, z], 1)
        return turned + (self.center + self.shift * share[:, None])[cluster]

    def where(self, first: Bool[Tensor, " C"], other: "ClusterMotion") -> "ClusterMotion":
        """Return own motions for the clusters of `first`, the other's elsewhere."""
        return ClusterMotion(
            self.center,
            torch.where(first, self.yaw, other.yaw),
            torch.where(first[:, None], self.shift, other.shift),
        )
