"""Random numbers keyed by sample: functions of (seed, stream, counter), the same on every device.

A generator gives numbers that depend on who drew before. These are a hash (splitmix64: Steele, Lea, Flood, "Fast
splittable pseudorandom number generators", 2014), so that what a sample draws depends on no rank, worker, batch or
device, and drawing on a GPU waits for nothing.

`stream` tells uses of one seed apart: each use has its own number.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from equilidar.structures import offsets as batch_offsets

# The constants of splitmix64 as signed 64-bit integers; products wrap, as they must.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def scramble(value: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Map 64-bit integers one to one onto integers that look random."""
    value = value + _STEP
    value = (value ^ _shift_right(value, 30)) * _FIRST
    value = (value ^ _shift_right(value, 27)) * _SECOND
    return value ^ _shift_right(value, 31)


def uniform(seeds: Int64[Tensor, " B"], stream: int, num: int) -> Float[Tensor, "B num"]:
    """Draw `num` numbers of [0, 1) for each seed, on the device of `seeds`."""
    counter = torch.arange(num, device=seeds.device)
    bits = scramble(scramble(_key(seeds, stream))[:, None] ^ counter)
    return _shift_right(bits, 40).float() * 2.0**-24


def random_keys(offsets: Int64[Tensor, " B1"], num_rows: int, seeds: Int64[Tensor, " B"], stream: int) -> Tensor:
    """Give each of `num_rows` rows of a batch a random non-negative (N,) int64; sorting by them shuffles an item.

    The number depends on the item's seed and on the row's place in its item alone.
    """
    item = batch_offsets.to_batch_index(offsets, num_rows)
    place = torch.arange(num_rows, device=offsets.device) - offsets[item]
    return _shift_right(scramble(scramble(_key(seeds, stream))[item] ^ place), 1)


def _key(seeds: Tensor, stream: int) -> Tensor:
    return scramble(seeds) ^ scramble(torch.full_like(seeds, stream))


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Shift zeros in from the left; torch's own shift repeats the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
