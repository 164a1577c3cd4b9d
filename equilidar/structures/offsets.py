"""Offsets: the one encoding of which rows of a concatenated tensor belong to which batch item.

`offsets` has B + 1 non-decreasing int64 entries; item b owns rows offsets[b] to offsets[b + 1].
"""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


def from_lengths(lengths: Iterable[int] | Int64[Tensor, " B"]) -> Int64[Tensor, " B1"]:
    """Return the offsets of items with the given numbers of rows."""
    counts = lengths if isinstance(lengths, Tensor) else torch.tensor(list(lengths), dtype=torch.int64)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def to_batch_index(offsets: Int64[Tensor, " B1"], num_rows: int) -> Int64[Tensor, " N"]:
    """Return the item of each row; `num_rows` is given so that no device needs to be asked for it."""
    items = torch.arange(len(offsets) - 1, device=offsets.device)
    return items.repeat_interleave(offsets.diff(), output_size=num_rows)


def after_mask(offsets: Int64[Tensor, " B1"], mask: Bool[Tensor, " N"]) -> Int64[Tensor, " B1"]:
    """Return the offsets of the rows that `mask` keeps."""
    kept = torch.cat([mask.new_zeros(1, dtype=torch.int64), mask.cumsum(0)])
    return kept[offsets]


def check(offsets: Tensor, num_rows: int, name: str) -> None:
    """Raise ValueError unless `offsets` can index `num_rows` rows (values are not read: they may be on a GPU)."""
    if offsets.dim() != 1 or offsets.numel() < 1 or offsets.dtype != torch.int64:
        raise ValueError(
            f"{name}.offsets must be a 1-d int64 tensor of batch size + 1 entries, got "
            f"{tuple(offsets.shape)} {offsets.dtype} for {num_rows} rows"
        )
