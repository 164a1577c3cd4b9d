"""What a sweep says of surfaces: thinned points, the plane at each, and the distance to them on a grid."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.flow.clustered_points import cluster_mean, distinct_rows
from equilidar.ops.distance_transform import distance_field
from equilidar.ops.neighbors import k_nearest
from equilidar.structures import GridSpec
from equilidar.structures import offsets as batch_offsets


@dataclass(frozen=True)
class SurfaceSettings:
    """How sweeps are thinned, and the field of distances.

    Attributes:
        thinning: edge length of the cells that are thinned to the mean of their points, metres.
        num_neighbors: thinned points that describe the surface around each, itself included. Few lie on one ring of a
            beam, which stands still where a car does not.
        radius: metres within which they are taken.
        roughness: depth of a surface, metres.
        voxel: edge length of the field's cells, metres.
        max_distance: metres at which distances are capped.
        reach: metres to each side of the sensor that the field covers; beyond, nothing is searched.
        height: the same upward and downward.
    """

    thinning: float = 0.2
    num_neighbors: int = 20
    radius: float = 1.0
    roughness: float = 0.05
    voxel: float = 0.3
    max_distance: float = 1.0
    reach: float = 80.0
    height: float = 4.0

    def __post_init__(self) -> None:
        lengths = (self.thinning, self.radius, self.roughness, self.voxel, self.max_distance, self.reach, self.height)
        if min(lengths) <= 0 or self.num_neighbors < 1:
            raise ValueError(f"surface settings must be positive, got {self}")


@dataclass(slots=True)
class ScannedSurface:
    """Thinned points of a batch of sweeps.

    Attributes:
        xyz: (N, 3) metres, sorted by item.
        item: (N,) batch item of each.
        offsets: (B + 1,).
        metric: (N, 3, 3) weights of a difference to each point: near 1 across the surface, near 0 along it.
        field: (B, Z, Y, X) metres from each cell of `grid` to the nearest that holds a point, capped.
        grid: of the field.
        max_distance: the cap, metres.
        ratio: (B,) the time from the source sweep to this one, over the time to the target.
    """

    xyz: Float[Tensor, "N 3"]
    item: Int64[Tensor, " N"]
    offsets: Int64[Tensor, " B1"]
    metric: Float[Tensor, "N 3 3"]
    field: Float[Tensor, "B Z Y X"]
    grid: GridSpec
    max_distance: float
    ratio: Float[Tensor, " B"]

    @classmethod
    def of_points(
        cls,
        xyz: Float[Tensor, "N 3"],
        item: Int64[Tensor, " N"],
        ratio: Float[Tensor, " B"],
        grid: GridSpec,
        settings: SurfaceSettings,
    ) -> "ScannedSurface":
        """Thin points, and see what surfaces they are on.

        Args:
            xyz: points, metres.
            item: batch item of each, rising.
            ratio: see the class.
            grid: of the field of distances.
            settings: see there.
        """
        number, count = distinct_rows(torch.cat([item[:, None], (xyz / settings.thinning).floor().long()], 1))
        owner = torch.zeros(count, dtype=torch.int64, device=xyz.device).index_copy_(0, number, item)
        means = cluster_mean(xyz, number, count)
        offsets = batch_offsets.from_lengths(torch.bincount(owner, minlength=len(ratio)))
        field = distance_field(means, offsets, grid, settings.max_distance)
        metric = surface_metric(means, offsets, settings)
        return cls(means, owner, offsets, metric, field, grid, settings.max_distance, ratio)


def shares(views: list[ScannedSurface]) -> list[Float[Tensor, " B"]]:
    """Return the weight of each view for each item: alike, but none for a view without points."""
    seen = torch.stack([view.offsets.diff() > 0 for view in views]).to(views[0].xyz.dtype)
    return list(seen / seen.sum(0).clamp_min(1))


def surface_metric(
    xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"], settings: SurfaceSettings
) -> Float[Tensor, "N 3 3"]:
    """Weigh directions at each point by how well its neighbours fix a position along them.

    A matrix roughness^2 (C + roughness^2 I)^-1, with C the covariance of the neighbours: as in Generalized-ICP (Segal
    et al., RSS 2009), without its eigenvectors. A lone point weighs all directions alike.
    """
    index = k_nearest(xyz, offsets, xyz, offsets, settings.num_neighbors, settings.radius).index
    weight = (index >= 0).to(xyz.dtype)[..., None]
    around = xyz[index.clamp_min(0)]
    count = weight.sum(1).clamp_min(1)
    apart = (around - ((around * weight).sum(1) / count)[:, None]) * weight
    covariance = apart.transpose(1, 2) @ apart / count[..., None]
    depth = settings.roughness**2
    return depth * torch.linalg.inv(covariance + depth * torch.eye(3, device=xyz.device, dtype=xyz.dtype))


def common_grid(clouds: list[Float[Tensor, "_ 3"]], settings: SurfaceSettings) -> GridSpec:
    """Return a grid around all of some clouds' points, with a margin of four voxels, within the settings' reach.

    Args:
        clouds: points, metres; not all empty.
        settings: see there.
    """
    limit = clouds[0].new_tensor([settings.reach, settings.reach, settings.height])
    points = torch.cat(clouds)
    low = torch.maximum(points.amin(0), -limit).minimum(limit)
    high = torch.minimum(points.amax(0), limit).maximum(low)
    size = settings.voxel
    x0, y0, z0 = (size * (math.floor(value / size) - 4) for value in low.tolist())
    x1, y1, z1 = (size * (math.ceil(value / size) + 4) for value in high.tolist())
    return GridSpec((x0, y0, z0), (x1, y1, z1), (size, size, size))
