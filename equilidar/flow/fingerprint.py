"""A number that tells whether two pairs of sweeps are the same data."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.structures import PointCloudBatch, SweepPairBatch
from equilidar.structures.seeding import scramble


def fingerprint(batch: SweepPairBatch) -> Int64[Tensor, " B"]:
    """Hash each pair's points (their bits and order), ego motion and gap, on the batch's device.

    Sums of hashed 64-bit integers: the same on every device and in whatever batch. No defence against malice.
    """
    motion = torch.cat([batch.target_T_source.matrix().flatten(1), batch.gap[:, None]], 1)
    place = torch.arange(motion.shape[1], device=motion.device)
    motion_hash = scramble(_bits(motion) ^ scramble(place)).sum(1)
    return scramble(scramble(_cloud_hash(batch.source)) ^ scramble(_cloud_hash(batch.target) + 1) ^ motion_hash)


def _cloud_hash(points: PointCloudBatch) -> Int64[Tensor, " B"]:
    item = points.batch_index
    hashed = torch.arange(len(item), device=item.device) - points.offsets[item]
    for column in _bits(points.xyz).unbind(1):
        hashed = scramble(hashed ^ column)
    return hashed.new_zeros(points.batch_size).index_add_(0, item, hashed)


def _bits(values: Float[Tensor, "N C"]) -> Int64[Tensor, "N C"]:
    return values.float().contiguous().view(torch.int32).long()
