"""Sparse convolution by dense `conv3d`: the oracle, itself tested on impulses in `test_sparse_conv.py`."""

import torch
from torch import Tensor


def dense_of(features: Tensor, coords: Tensor, shape: tuple[int, int, int], batch_size: int) -> Tensor:
    """Scatter rows into (B, C, Z, Y, X); differentiable."""
    batch, z, y, x = coords.long().unbind(1)
    dense = features.new_zeros(batch_size, *shape, features.shape[1]).index_put((batch, z, y, x), features)
    return dense.permute(0, 4, 1, 2, 3)


def conv3d(dense: Tensor, weight: Tensor, stride, padding) -> Tensor:
    """Cross-correlate with a (out, kz, ky, kx, in) kernel."""
    return torch.nn.functional.conv3d(dense, weight.permute(0, 4, 1, 2, 3), stride=stride, padding=padding)


def rows_of(dense: Tensor, coords: Tensor) -> Tensor:
    batch, z, y, x = coords.long().unbind(1)
    return dense.permute(0, 2, 3, 4, 1)[batch, z, y, x]


def reached(coords: Tensor, shape, batch_size: int, kernel, stride, padding) -> Tensor:
    """Cells, sorted, whose window holds an occupied cell."""
    # In float64: oneDNN (torch 2.13) leaves out cells of float32 convolutions whose padding exceeds their input.
    occupied = dense_of(torch.ones(len(coords), 1, dtype=torch.float64), coords, shape, batch_size)
    ones = torch.ones(1, *kernel, 1, dtype=torch.float64)
    return (conv3d(occupied, ones, stride, padding)[:, 0] > 0.5).nonzero().int()


def random_coords(shape, counts: list[int], seed: int, *, shuffled: bool = False) -> Tensor:
    """Unique cells of each item, sorted or in random order."""
    generator = torch.Generator().manual_seed(seed)
    total = shape[0] * shape[1] * shape[2]
    rows = []
    for item, count in enumerate(counts):
        cell = torch.randperm(total, generator=generator)[: min(count, total)].sort().values
        z, rest = cell // (shape[1] * shape[2]), cell % (shape[1] * shape[2])
        rows.append(torch.stack([torch.full_like(cell, item), z, rest // shape[2], rest % shape[2]], 1))
    coords = torch.cat(rows).int()
    return coords[torch.randperm(len(coords), generator=generator)] if shuffled else coords
