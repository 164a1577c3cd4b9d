"""Affine maps of 3D space, one per batch item.

A map that takes coordinates in frame a to coordinates in frame b is called `b_T_a`, destination
first, so that inner letters cancel: `c_T_a = c_T_b @ b_T_a`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.structures import offsets as batch_offsets
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class Affine3(Movable):
    """x -> linear @ x + translation, for each of B batch items.

    One type for poses, flips, scales and shears: flips and scales are not in SE(3).

    Attributes:
        linear: (B, 3, 3).
        translation: (B, 3), metres.
    """

    linear: Float[Tensor, "B 3 3"]
    translation: Float[Tensor, "B 3"]

    @classmethod
    def identity(
        cls,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "Affine3":
        """Return the map that changes nothing, `batch_size` times."""
        linear = torch.eye(3, device=device, dtype=dtype).repeat(batch_size, 1, 1)
        return cls(linear, linear.new_zeros(batch_size, 3))

    @classmethod
    def from_matrix(cls, matrix: Float[Tensor, "B 4 4"]) -> "Affine3":
        """Return the maps of homogeneous (B, 4, 4) matrices."""
        return cls(matrix[:, :3, :3].clone(), matrix[:, :3, 3].clone())

    @classmethod
    def from_parts(
        cls,
        *,
        yaw: Float[Tensor, " B"],
        scale: Float[Tensor, " B"] | None = None,
        flip_y: Tensor | None = None,
        translation: Float[Tensor, "B 3"] | None = None,
    ) -> "Affine3":
        """Return R * S * F and a translation: mirror y -> -y first, then scale, then turn about z.

        Args:
            yaw: angle about +z, radians, counter-clockwise.
            scale: positive factor; 1 if None.
            flip_y: (B,) bool, True mirrors y; no mirror if None.
            translation: metres, applied last; zero if None.
        """
        cos, sin, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
        one = torch.ones_like(yaw)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).view(-1, 3, 3)
        linear = rotation if scale is None else rotation * scale[:, None, None]
        if flip_y is not None:
            mirror = torch.stack([one, torch.where(flip_y.bool(), -one, one), one], -1)
            linear = linear * mirror[:, None, :]
        return cls(linear, yaw.new_zeros(len(yaw), 3) if translation is None else translation)

    @property
    def batch_size(self) -> int:
        return len(self.linear)

    def matrix(self) -> Float[Tensor, "B 4 4"]:
        """Return homogeneous (B, 4, 4) matrices."""
        matrix = torch.eye(4, device=self.linear.device, dtype=self.linear.dtype).repeat(self.batch_size, 1, 1)
        matrix[:, :3, :3] = self.linear
        matrix[:, :3, 3] = self.translation
        return matrix

    def __matmul__(self, inner: "Affine3") -> "Affine3":
        """Compose: `(self @ inner).apply(x) == self.apply(inner.apply(x))`."""
        if inner.batch_size != self.batch_size:
            raise ValueError(f"cannot compose {self.batch_size} transforms with {inner.batch_size}")
        translation = torch.einsum("bij,bj->bi", self.linear, inner.translation) + self.translation
        return Affine3(self.linear @ inner.linear, translation)

    def inverse(self) -> "Affine3":
        """Return the maps back; raises torch's LinAlgError where a linear part is singular."""
        linear = torch.linalg.inv(self.linear)
        return Affine3(linear, -torch.einsum("bij,bj->bi", linear, self.translation))

    def apply(self, xyz: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"]) -> Float[Tensor, "N 3"]:
        """Move points: rows offsets[b] to offsets[b + 1] by map b."""
        return self._rows(xyz, offsets, self.translation)

    def apply_vectors(self, vectors: Float[Tensor, "N 3"], offsets: Int64[Tensor, " B1"]) -> Float[Tensor, "N 3"]:
        """Move directions and displacements (flow, velocity): the linear part alone."""
        return self._rows(vectors, offsets, None)

    def _rows(self, rows: Tensor, offsets: Tensor, translation: Tensor | None) -> Tensor:
        batch_offsets.check(offsets, len(rows), "points")
        if len(offsets) != self.batch_size + 1:
            raise ValueError(f"{self.batch_size} transforms cannot move a batch of {len(offsets) - 1} items")
        item = batch_offsets.to_batch_index(offsets, len(rows))
        # Without matmul: its float32 rounding depends on the number of rows, and one point must land in the same
        # voxel whether it is moved alone or with its sweep.
        linear = self.linear.to(rows.dtype)
        x, y, z = rows[:, None].unbind(2)
        moved = linear[item, :, 0] * x + linear[item, :, 1] * y + linear[item, :, 2] * z
        return moved if translation is None else moved + translation.to(rows.dtype)[item]

    def scales(self) -> Float[Tensor, " B"]:
        """Return the factor by which lengths grow: the cube root of |det|."""
        return torch.linalg.det(self.linear).abs() ** (1 / 3)

    def is_similarity(self, tolerance: float = 1e-4) -> bool:
        """Tell whether all maps keep angles (rotation, mirror, uniform scale, translation)."""
        gram = self.linear.transpose(1, 2) @ self.linear
        scale = gram.diagonal(dim1=1, dim2=2).mean(1)
        eye = torch.eye(3, device=gram.device, dtype=gram.dtype)
        error = (gram - scale[:, None, None] * eye).abs().amax((1, 2))
        return bool(((error <= tolerance * scale) & (scale > 0)).all())

    def is_rigid(self, tolerance: float = 1e-4) -> bool:
        """Tell whether all maps keep lengths and handedness (rotation and translation)."""
        determinants = torch.linalg.det(self.linear)
        return self.is_similarity(tolerance) and bool(((determinants - 1).abs() <= 3 * tolerance).all())

    def yaw_of(self, yaw: Float[Tensor, " N"], offsets: Int64[Tensor, " B1"]) -> Float[Tensor, " N"]:
        """Return headings after the map, wrapped to [-pi, pi); the maps must keep z vertical."""
        heading = torch.stack([yaw.cos(), yaw.sin(), torch.zeros_like(yaw)], -1)
        moved = self.apply_vectors(heading, offsets)
        return torch.remainder(torch.atan2(moved[:, 1], moved[:, 0]) + math.pi, 2 * math.pi) - math.pi

    def __getitem__(self, items: slice | Tensor | list[int]) -> "Affine3":
        return Affine3(self.linear[items], self.translation[items])

    @staticmethod
    def cat(transforms: "list[Affine3]") -> "Affine3":
        """Concatenate along the batch."""
        return Affine3(
            torch.cat([t.linear for t in transforms]),
            torch.cat([t.translation for t in transforms]),
        )
