"""Batches of point clouds."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.structures import offsets as batch_offsets
from equilidar.structures.host_sync import rows_where
from equilidar.structures.moving import Movable
from equilidar.structures.transform import Affine3


@dataclass(slots=True)
class PointCloudBatch(Movable):
    """B point clouds, concatenated.

    Attributes:
        xyz: (N, 3) metres.
        features: (N, C) sensor channels without coordinates (intensity, time ...).
        offsets: (B + 1,) int64.
        channels: the C channel names.
    """

    xyz: Float[Tensor, "N 3"]
    features: Float[Tensor, "N C"]
    offsets: Int64[Tensor, " B1"]
    channels: tuple[str, ...]

    def __post_init__(self) -> None:
        batch_offsets.check(self.offsets, len(self.xyz), "points")
        if self.features.shape[1] != len(self.channels):
            raise ValueError(f"points.features has {self.features.shape[1]} columns for channels {self.channels}")

    @property
    def batch_size(self) -> int:
        return len(self.offsets) - 1

    @property
    def batch_index(self) -> Int64[Tensor, " N"]:
        """The item of each point."""
        return batch_offsets.to_batch_index(self.offsets, len(self.xyz))

    @classmethod
    def collate(
        cls, clouds: "list[PointCloudBatch]", concatenate: Callable[[list[Tensor]], Tensor] = torch.cat
    ) -> "PointCloudBatch":
        """Concatenate along the batch, the points by `concatenate`; all must have the same channels."""
        if not clouds:
            raise ValueError("points: cannot collate an empty list")
        for cloud in clouds[1:]:
            if cloud.channels != clouds[0].channels:
                raise ValueError(f"points: channels {cloud.channels} beside {clouds[0].channels} in one batch")
        lengths = torch.cat([cloud.offsets.diff() for cloud in clouds])
        return cls(
            concatenate([cloud.xyz for cloud in clouds]),
            concatenate([cloud.features for cloud in clouds]),
            batch_offsets.from_lengths(lengths),
            clouds[0].channels,
        )

    def split(self) -> "list[PointCloudBatch]":
        """Return the items as batches of one; the inverse of `collate`. Reads the offsets on the host."""
        bounds = self.offsets.tolist()
        return [
            PointCloudBatch(
                self.xyz[start:stop],
                self.features[start:stop],
                torch.tensor([0, stop - start], device=self.xyz.device),
                self.channels,
            )
            for start, stop in itertools.pairwise(bounds)
        ]

    def select(self, mask: Bool[Tensor, " N"]) -> "PointCloudBatch":
        """Keep the points where `mask` is true, in their order."""
        rows = rows_where(mask, "number of points kept")
        return PointCloudBatch(
            self.xyz[rows],
            self.features[rows],
            batch_offsets.after_mask(self.offsets, mask),
            self.channels,
        )

    def transformed(self, transform: Affine3) -> "PointCloudBatch":
        """Move each cloud by its own map."""
        return PointCloudBatch(transform.apply(self.xyz, self.offsets), self.features, self.offsets, self.channels)
