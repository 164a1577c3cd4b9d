"""Oriented 3D boxes."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import rows_where
from equilidar.structures.moving import Movable
from equilidar.structures.transform import Affine3

# What the class below says, as files are stamped with it.
BOX_CONVENTION = "center x y z, length width height, yaw counter-clockwise from +x"

# Corner order: bottom face then top face; (+,+), (+,-), (-,-), (-,+) in (length, width).
_CORNERS = torch.tensor(
    [[sx, sy, sz] for sz in (-0.5, 0.5) for sx, sy in ((0.5, 0.5), (0.5, -0.5), (-0.5, -0.5), (-0.5, 0.5))]
)


def wrap_angle(angle: Tensor) -> Tensor:
    """Wrap radians to [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def _keeps_boxes_upright(transform: Affine3) -> bool:
    vertical = transform.linear[:, 2, 2]
    tilt = torch.cat([transform.linear[:, 2, :2], transform.linear[:, :2, 2]], 1).abs().amax(1)
    return transform.is_similarity() and bool(((tilt <= 1e-4 * vertical.abs()) & (vertical > 0)).all())


@dataclass(slots=True)
class Boxes3D(Movable):
    """Boxes of B sweeps, concatenated. Other conventions are converted in the reader that meets them.

    Attributes:
        center: (M, 3) geometric center, metres.
        size: (M, 3) length (along the heading), width, height, metres, positive.
        yaw: (M,) radians, counter-clockwise from +x about +z.
        velocity: (M, 3) metres per second over ground, NaN where unknown.
        label: (M,) int64 class index.
        track: (M,) int64 identity over time, -1 where unknown.
        offsets: (B + 1,) int64.
    """

    center: Float[Tensor, "M 3"]
    size: Float[Tensor, "M 3"]
    yaw: Float[Tensor, " M"]
    velocity: Float[Tensor, "M 3"]
    label: Int64[Tensor, " M"]
    track: Int64[Tensor, " M"]
    offsets: Int64[Tensor, " B1"]

    def __post_init__(self) -> None:
        batch_offsets.check(self.offsets, len(self.center), "boxes")

    @classmethod
    def make(
        cls,
        center: Float[Tensor, "M 3"],
        size: Float[Tensor, "M 3"],
        yaw: Float[Tensor, " M"],
        *,
        label: Int64[Tensor, " M"] | None = None,
        velocity: Float[Tensor, "M 3"] | None = None,
        track: Int64[Tensor, " M"] | None = None,
        offsets: Int64[Tensor, " B1"] | None = None,
    ) -> "Boxes3D":
        """Build boxes of one sweep (or of several, with `offsets`), filling in what is not known."""
        num = len(center)
        unknown = center.new_full((num, 3), math.nan)
        minus_one = torch.full((num,), -1, dtype=torch.int64, device=center.device)
        return cls(
            center,
            size,
            yaw,
            unknown if velocity is None else velocity,
            torch.zeros_like(minus_one) if label is None else label,
            minus_one if track is None else track,
            torch.tensor([0, num], device=center.device) if offsets is None else offsets,
        )

    @classmethod
    def empty(cls, batch_size: int = 1, device: torch.device | str = "cpu") -> "Boxes3D":
        """Return no boxes for each of `batch_size` sweeps."""
        three = torch.zeros(0, 3, device=device)
        return cls.make(
            three,
            three,
            three[:, 0],
            offsets=torch.zeros(batch_size + 1, dtype=torch.int64, device=device),
        )

    def __len__(self) -> int:
        return len(self.center)

    @property
    def batch_size(self) -> int:
        return len(self.offsets) - 1

    @property
    def batch_index(self) -> Int64[Tensor, " M"]:
        return batch_offsets.to_batch_index(self.offsets, len(self))

    def as_tensor(self) -> Float[Tensor, "M 7"]:
        """Return x, y, z, length, width, height, yaw: the layout of the ops."""
        return torch.cat([self.center, self.size, self.yaw[:, None]], 1)

    def corners(self) -> Float[Tensor, "M 8 3"]:
        """Return the corners: bottom face then top, (+,+), (+,-), (-,-), (-,+) in (length, width)."""
        local = _CORNERS.to(self.center) * self.size[:, None, :]
        cos, sin = self.yaw.cos()[:, None], self.yaw.sin()[:, None]
        x = local[..., 0] * cos - local[..., 1] * sin
        y = local[..., 0] * sin + local[..., 1] * cos
        return torch.stack([x, y, local[..., 2]], -1) + self.center[:, None, :]

    def contains(self, xyz: Float[Tensor, "N 3"], margin: float = 0.0) -> Bool[Tensor, "M N"]:
        """Tell which points lie in which boxes, faces included (all pairs: for small numbers; see `ops`).

        Args:
            xyz: points in the frame of the boxes; the batch is not looked at.
            margin: metres by which each face is moved outwards.
        """
        delta = xyz[None] - self.center[:, None]
        cos, sin = self.yaw.cos()[:, None], self.yaw.sin()[:, None]
        along = delta[..., 0] * cos + delta[..., 1] * sin
        across = delta[..., 1] * cos - delta[..., 0] * sin
        local = torch.stack([along, across, delta[..., 2]], -1)
        return (local.abs() <= self.size[:, None] / 2 + margin).all(-1)

    def select(self, mask: Bool[Tensor, " M"]) -> "Boxes3D":
        """Keep the boxes where `mask` is true, in their order."""
        return self.rows(rows_where(mask, "number of boxes kept"), batch_offsets.after_mask(self.offsets, mask))

    def rows(self, rows: Int64[Tensor, " K"], offsets: Int64[Tensor, " B1"]) -> "Boxes3D":
        """Return the boxes of some rows, which belong to items by `offsets`."""
        return Boxes3D(
            self.center[rows],
            self.size[rows],
            self.yaw[rows],
            self.velocity[rows],
            self.label[rows],
            self.track[rows],
            offsets,
        )

    def transformed(self, transform: Affine3, *, trusted: bool = False) -> "Boxes3D":
        """Move each sweep's boxes by its own map.

        Args:
            transform: one map for each item.
            trusted: do not look whether the maps keep boxes upright, which would wait for the device; for maps that
                are of this kind by the way they were made.

        Raises:
            ValueError: a map is no combination of rotation about z, mirror in a vertical plane, uniform scale and
                translation; a box would not stay an upright box.
        """
        if not trusted and not _keeps_boxes_upright(transform):
            raise ValueError(
                "boxes.transformed takes rotations about z, mirrors in vertical planes, uniform scale and "
                f"translation; got linear parts {transform.linear.tolist()}"
            )
        scale = transform.scales().to(self.size.dtype)[self.batch_index]
        return Boxes3D(
            transform.apply(self.center, self.offsets),
            self.size * scale[:, None],
            transform.yaw_of(self.yaw, self.offsets),
            transform.apply_vectors(self.velocity, self.offsets),
            self.label,
            self.track,
            self.offsets,
        )

    @classmethod
    def collate(cls, items: "list[Boxes3D]") -> "Boxes3D":
        """Concatenate along the batch."""
        names = ("center", "size", "yaw", "velocity", "label", "track")
        columns = [torch.cat([getattr(item, name) for item in items]) for name in names]
        return cls(
            *columns,
            offsets=batch_offsets.from_lengths(torch.cat([item.offsets.diff() for item in items])),
        )

    def split(self) -> "list[Boxes3D]":
        """Return the items as batches of one; the inverse of `collate`. Reads the offsets on the host."""
        bounds = self.offsets.tolist()
        return [
            Boxes3D.make(
                self.center[i:j],
                self.size[i:j],
                self.yaw[i:j],
                label=self.label[i:j],
                velocity=self.velocity[i:j],
                track=self.track[i:j],
            )
            for i, j in itertools.pairwise(bounds)
        ]
