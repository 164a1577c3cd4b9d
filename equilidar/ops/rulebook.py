"""Rulebooks: which input row meets which output row under which kernel offset.

A sparse convolution is a cross-correlation, as torch's `conv3d`: output cell o reads input cell
o * stride - padding + k through the weight at offset k. The canonical form of that relation is the neighbour table,
(K, V_out), offsets in (z, y, x) order: the input row that an output row reads under an offset, -1 where that cell
is empty. `Rulebook` holds the same as pairs, which is what gather-GEMM-scatter consumes.

Cells are told apart by int64 keys, so that grids and batches of more than 2^31 cells are no matter.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int, Int32, Int64
from torch import Tensor

from equilidar.ops._registration import define_op
from equilidar.structures.host_sync import allowed_sync

IntTriple = tuple[int, int, int]
_MAX_BATCH = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Pairs of rows, sorted by kernel offset and then by output row.

    For one offset every input row and every output row occurs at most once, so a scatter-add over the pairs of one
    offset has no collisions: results do not depend on the order of additions, on any device.

    Attributes:
        in_rows: (P,) rows of the input features.
        out_rows: (P,) rows of the output features.
        counts: pairs per kernel offset, on the host; they sum to P.
        center: the offset that maps every row to itself and whose pairs are therefore left out; -1 if there is none.
        num_in: number of input rows.
        num_out: number of output rows.
    """

    in_rows: Int32[Tensor, " P"]
    out_rows: Int32[Tensor, " P"]
    counts: tuple[int, ...]
    center: int
    num_in: int
    num_out: int

    def inverted(self) -> "Rulebook":
        """Return the rulebook of the inverse convolution: the same offsets, input and output exchanged."""
        return replace(self, in_rows=self.out_rows, out_rows=self.in_rows, num_in=self.num_out, num_out=self.num_in)


def submanifold_rulebook(coords: Int32[Tensor, "V 4"], shape: IntTriple, kernel: IntTriple) -> Rulebook:
    """Return the rulebook of a convolution whose output cells are its input cells (Graham et al., CVPR 2018).

    Args:
        coords: unique [batch, z, y, x] rows in any order.
        shape: cells (z, y, x).
        kernel: odd sizes (z, y, x).
    """
    if any(size < 1 or size % 2 == 0 for size in kernel):
        raise ValueError(f"kernel of a submanifold convolution must be odd along every axis, got {tuple(kernel)}")
    # Neighbours of cells at the border have keys, too.
    check_cells([size + extent // 2 for size, extent in zip(shape, kernel, strict=True)])
    with allowed_sync("size of the rulebook"):
        in_rows, out_rows, counts = _submanifold_pairs(coords, shape, kernel)
        per_offset = tuple(counts.tolist())
    return Rulebook(in_rows, out_rows, per_offset, math.prod(kernel) // 2, len(coords), len(coords))


def strided_rulebook(
    coords: Int32[Tensor, "V 4"], shape: IntTriple, kernel: IntTriple, stride: IntTriple, padding: IntTriple
) -> tuple[Rulebook, Int32[Tensor, "W 4"]]:
    """Return the rulebook of a convolution that yields every output cell its kernel reaches, and those cells.

    Args:
        coords: unique [batch, z, y, x] rows in any order.
        shape: input cells (z, y, x).
        kernel: sizes (z, y, x).
        stride: steps (z, y, x).
        padding: cells (z, y, x) added on both sides.

    Returns:
        The rulebook, and the output coords sorted by [batch, z, y, x].
    """
    check_cells(shape)
    check_cells(output_shape(shape, kernel, stride, padding))
    with allowed_sync("size of the rulebook, number of output cells"):
        in_rows, out_rows, counts, out_coords = _strided_pairs(coords, shape, kernel, stride, padding)
        per_offset = tuple(counts.tolist())
    return Rulebook(in_rows, out_rows, per_offset, -1, len(coords), len(out_coords)), out_coords


def output_shape(shape: IntTriple, kernel: IntTriple, stride: IntTriple, padding: IntTriple) -> IntTriple:
    """Return the cells (z, y, x) of a strided convolution's output.

    Raises:
        ValueError: a size is not positive, or the kernel fits nowhere along an axis.
    """
    if min(*kernel, *stride) < 1 or min(padding) < 0:
        raise ValueError(f"kernel {tuple(kernel)} and stride {tuple(stride)} must be >= 1, padding {padding} >= 0")
    z, y, x = (
        (size + 2 * pad - extent) // step + 1
        for size, extent, step, pad in zip(shape, kernel, stride, padding, strict=True)
    )
    if min(z, y, x) < 1:
        raise ValueError(
            f"a convolution of kernel {tuple(kernel)}, stride {tuple(stride)}, padding {tuple(padding)} leaves "
            f"nothing of {tuple(shape)} cells (z, y, x): choose a larger grid or smaller voxels"
        )
    return z, y, x


def check_cells(shape: Sequence[int], batch_size: int = _MAX_BATCH) -> None:
    """Raise ValueError where cells could not be told apart: keys have 63 bits, and indices along an axis 31.

    Args:
        shape: cells (z, y, x).
        batch_size: number of items; where only a device knows it, 16 bits are left to it.
    """
    # Indices side by side in one integer: some kernels make keys so, which `cell_keys` are never larger than.
    bits = [(size - 1).bit_length() for size in shape]
    if sum(bits) + batch_size.bit_length() > 63 or max(bits) > 31:
        raise ValueError(
            f"a grid of {tuple(shape)} cells (z, y, x) has indices of {bits} bits, and a batch of {batch_size} takes "
            f"{batch_size.bit_length()} more: at most 63 in all, and 31 along an axis, can be told apart; choose a "
            "smaller grid or larger voxels"
        )


def cell_keys(coords: Int[Tensor, "V 4"], shape: Sequence[int]) -> Int64[Tensor, " V"]:
    """Return one int64 per [batch, z, y, x] row that sorts as the rows do."""
    batch, z, y, x = coords.long().unbind(1)
    return ((batch * shape[0] + z) * shape[1] + y) * shape[2] + x


def cells_of_keys(keys: Int64[Tensor, " V"], shape: Sequence[int]) -> Int32[Tensor, "V 4"]:
    """Return the [batch, z, y, x] rows of `cell_keys`."""
    x, rest = keys % shape[2], keys // shape[2]
    y, rest = rest % shape[1], rest // shape[1]
    return torch.stack([rest // shape[0], rest % shape[0], y, x], 1).int()


def _pairs_of_table(table: Tensor, center: int) -> tuple[Tensor, Tensor, Tensor]:
    """List the pairs of a neighbour table: input rows, output rows, and (on the host) their number per offset."""
    used = table >= 0
    if center >= 0:
        used[center] = False
    entries = used.flatten().nonzero()[:, 0]
    return table.flatten()[entries].int(), (entries % max(table.shape[1], 1)).int(), used.sum(1).cpu()


def _submanifold_reference(
    coords: Tensor, shape: Sequence[int], kernel: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    # Two economies. The relation is symmetric: if i reads j at offset k, j reads i at the mirrored offset, so only
    # the later half of the offsets is searched. And cells adjacent along x are adjacent in the sorted keys: one binary
    # search finds the first of a run along x, the others follow it.
    reach_z, reach_y, reach_x = (size // 2 for size in kernel)
    # A margin per axis keeps neighbours across the border from being taken for cells of the next line.
    padded = (shape[0] + reach_z, shape[1] + reach_y, shape[2] + reach_x)
    keys, order = cell_keys(coords, padded).sort()
    num, center = len(keys), math.prod(kernel) // 2
    # One more entry each, for what is not found: a key that nothing equals, no row, and a column to be dropped.
    keys_end = torch.cat([keys, keys.new_full((1,), torch.iinfo(torch.int64).max)])
    order_end = torch.cat([order, order.new_full((1,), -1)])
    table = order.new_full((math.prod(kernel), num + 1), -1)
    table[center] = order_end
    offset = center
    for dz, dy in itertools.product(range(reach_z + 1), range(-reach_y, reach_y + 1)):
        if (dz, dy) < (0, 0):
            continue
        line = keys + (dz * padded[1] + dy) * padded[2]
        first = 1 if (dz, dy) == (0, 0) else -reach_x
        position = torch.searchsorted(keys, line + first)
        for dx in range(first, reach_x + 1):
            offset += 1
            found = keys_end[position] == line + dx
            source = torch.where(found, position, num)
            table[offset, :num] = order_end[source]
            table[2 * center - offset].scatter_(0, source, order)
            position = position + found
    return _pairs_of_table(torch.empty_like(table[:, :num]).index_copy_(1, order, table[:, :num]), center)


def _submanifold_fake(coords: Tensor, shape: Sequence[int], kernel: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    num_pairs = torch.library.get_ctx().new_dynamic_size()
    in_rows, out_rows = (coords.new_empty(num_pairs, dtype=torch.int32) for _ in range(2))
    return in_rows, out_rows, torch.empty(math.prod(kernel), dtype=torch.int64)


def _strided_reference(
    coords: Tensor, shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out_shape = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(shape, kernel, stride, padding, strict=True)]
    batch, *axes = coords.long().unbind(1)
    key = batch[:, None, None, None]
    offset = torch.zeros_like(key)
    valid = torch.ones_like(key, dtype=torch.bool)
    for axis, index in enumerate(axes):
        # At most ceil(kernel / stride) output cells per axis read a cell: far fewer candidates than offsets.
        taps = torch.arange(-(-kernel[axis] // stride[axis]), device=coords.device)
        shifted = (index + padding[axis])[:, None]
        out = shifted // stride[axis] - taps
        tap = shifted - out * stride[axis]
        fits = (tap < kernel[axis]) & (out >= 0) & (out < out_shape[axis])
        view = [len(coords), 1, 1, 1]
        view[axis + 1] = len(taps)
        key = key * out_shape[axis] + out.view(view)
        offset = offset * kernel[axis] + tap.view(view)
        valid = valid & fits.view(view)
    out_keys, out_rows = key[valid].unique(return_inverse=True)
    table = out_rows.new_full((math.prod(kernel), len(out_keys)), -1)
    table[offset[valid], out_rows] = valid.nonzero()[:, 0]
    return *_pairs_of_table(table, -1), cells_of_keys(out_keys, out_shape)


def _strided_fake(
    coords: Tensor, shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    num_out = torch.library.get_ctx().new_dynamic_size()
    return *_submanifold_fake(coords, shape, kernel), coords.new_empty((num_out, 4), dtype=torch.int32)


_submanifold_pairs = define_op(
    "submanifold_pairs(Tensor coords, int[] shape, int[] kernel) -> (Tensor, Tensor, Tensor)",
    reference=_submanifold_reference,
    fake=_submanifold_fake,
)
_strided_pairs = define_op(
    "strided_pairs(Tensor coords, int[] shape, int[] kernel, int[] stride, int[] padding) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    reference=_strided_reference,
    fake=_strided_fake,
)
