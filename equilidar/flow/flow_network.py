"""A small network on pillars of two sweeps that matches them, and tells which move over ground, and how far."""

import itertools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from equilidar.flow.flow_matching import cells_at_shifts, peak_shift, similarities
from equilidar.flow.flow_pillars import FlowNetworkShape, PillarPair
from equilidar.nn import InverseConv3d, SparseBlock, SparseConv3d, SubmanifoldConv3d
from equilidar.structures import SparseVoxels
from equilidar.structures.host_sync import allowed_sync

_FLAT, _DOWN = (1, 3, 3), (1, 2, 2)


@dataclass(slots=True)
class FlowAnswer:
    """What the network says of each square of 2 x 2 pillars that holds source points.

    Attributes:
        motion: (V, 3) over ground, metres over the gap.
        moves: (V,) logit of moving at all.
        shifts: (V, S) logits of the shifts within reach, see `shifts_of`.
        rows: (N,) square of each source point, -1 where it lies on the ground or outside.
        squares: the source's, of B items.
    """

    motion: Float[Tensor, "V 3"]
    moves: Float[Tensor, " V"]
    shifts: Float[Tensor, "V S"]
    rows: Int64[Tensor, " N"]
    squares: SparseVoxels


class FlowNetwork(nn.Module):
    """Features of both sweeps by one encoder, their similarities at all shifts within reach, and a decoder of these.

    Attributes:
        shape: of the network.
    """

    def __init__(self, shape: FlowNetworkShape) -> None:
        """Build it for a shape."""
        super().__init__()
        self.shape = shape
        w, num = shape.width, (2 * shape.steps + 1) ** 2
        self.stem = _same(shape.channels, w)
        self.squares = _down(w, 2 * w)
        self.encoder = _Pyramid([2 * w, 3 * w, 4 * w])
        self.key = nn.Linear(2 * w, shape.match - 1)
        # Sharpness of the comparison, and what an occupied square is worth against an empty one.
        self.sharpness = nn.Parameter(torch.tensor([10.0, 1.0]))
        self.enter = nn.Linear(4 * w + num, 3 * w)
        self.decoder = _Pyramid([3 * w, 4 * w, 4 * w])
        self.head = nn.Sequential(nn.Linear(3 * w, 3 * w), nn.ReLU())
        self.shifts, self.rest = nn.Linear(3 * w, num), nn.Linear(3 * w, 4)

    def forward(self, pair: PillarPair) -> FlowAnswer:
        """Match a pair."""
        squares = self.squares(self.stem(pair.pillars))
        rows = at_points(_square_of(pair.pillars, squares) + 1, pair.rows) - 1
        encoded = self.encoder(squares)
        keys = F.normalize(self.key(encoded.features), dim=1, eps=1e-4)
        source, target = _halves(encoded, pair.num_items)
        steps = self.shape.steps
        cells = cells_at_shifts(source, target, steps)
        num = len(source.coords)
        occupied = torch.ones_like(keys[:, :1])
        sharp, worth = self.sharpness
        alike = similarities(
            torch.cat([keys[:num] * sharp, occupied[:num] * worth], 1),
            torch.cat([keys[num:], occupied[num:]], 1),
            cells,
        )
        here = torch.cat([target.features, target.features.new_zeros(1, target.features.shape[1])])
        here = here[cells[:, cells.shape[1] // 2]]
        entered = torch.relu(self.enter(torch.cat([source.features, here, alike / 10], 1)))
        found = self.head(self.decoder(source.with_features(entered)).features)
        shifts, rest = alike + self.shifts(found), self.rest(found)
        motion = torch.cat([peak_shift(shifts) * 2 * self.shape.cell + rest[:, :2], rest[:, 2:3]], 1)
        return FlowAnswer(motion, rest[:, 3], shifts, rows, source)


class _Pyramid(nn.Module):
    """A U of three levels over occupied cells: each level sees four times the area of the one before."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.first = _same(widths[0], widths[0])
        self.down = nn.ModuleList(nn.Sequential(_down(a, b), _same(b, b), _same(b, b)) for a, b in pairs)
        self.up = nn.ModuleList(InverseConv3d(b, a, _DOWN, _DOWN, bias=True) for a, b in pairs)
        self.join = nn.ModuleList(_same(2 * a, a) for a in widths[:-1])

    def forward(self, cells: SparseVoxels) -> SparseVoxels:
        levels = [self.first(cells)]
        for down in self.down:
            levels.append(down(levels[-1]))
        found = levels.pop()
        for up, join in zip(reversed(self.up), reversed(self.join), strict=True):
            fine = levels.pop()
            found = join(fine.with_features(torch.cat([fine.features, torch.relu(up(found, fine).features)], 1)))
        return found


def _same(channels: int, width: int) -> SparseBlock:
    return SparseBlock(SubmanifoldConv3d(channels, width, _FLAT), momentum=0.1)


def _down(channels: int, width: int) -> SparseBlock:
    return SparseBlock(SparseConv3d(channels, width, _DOWN, _DOWN), momentum=0.1)


def _square_of(pillars: SparseVoxels, squares: SparseVoxels) -> Int64[Tensor, " V"]:
    """Return the row of the square that holds each pillar."""
    table = torch.zeros(squares.batch_size, *squares.shape[1:], dtype=torch.int64, device=squares.coords.device)
    item, _, y, x = squares.coords.long().unbind(1)
    table[item, y, x] = torch.arange(len(item), device=table.device)
    item, _, y, x = pillars.coords.long().unbind(1)
    return table[item, y // 2, x // 2]


def _halves(cells: SparseVoxels, num_items: int) -> tuple[SparseVoxels, SparseVoxels]:
    """Part sources from targets; cells are sorted by item."""
    with allowed_sync("number of the sources' squares"):
        num = int((cells.coords[:, 0] < num_items).sum())
    parts = []
    for rows, first in ((slice(0, num), 0), (slice(num, None), num_items)):
        coords = cells.coords[rows].clone()
        coords[:, 0] -= first
        parts.append(SparseVoxels(coords, cells.features[rows], cells.grid, cells.shape, cells.stride, num_items))
    return parts[0], parts[1]


def at_points(values: Shaped[Tensor, "V ..."], rows: Int64[Tensor, " N"]) -> Shaped[Tensor, "N ..."]:
    """Return the value of each point's row, zero for points of none."""
    known = rows >= 0
    if not len(values):
        return values.new_zeros(len(rows), *values.shape[1:])
    picked = values[rows.clamp(min=0)]
    return torch.where(known.view(-1, *[1] * (values.ndim - 1)), picked, torch.zeros_like(picked))
