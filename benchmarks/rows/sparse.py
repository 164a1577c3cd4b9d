"""Voxelization, rulebooks and sparse convolution against spconv, torch's own GEMM and memory."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks import frames
from benchmarks.harness import Row
from benchmarks.memory import peak_bytes
from benchmarks.spconv_backbone import spconv_step, with_better_threads
from equilidar.backbones import VoxelBackBone8x
from equilidar.nn import rulebook_cache
from equilidar.nn.sparse_conv import SparseConv3d, SparseConvBase
from equilidar.ops.rulebook import Rulebook
from equilidar.ops.voxelize import HardVoxels, voxelize_hard, voxelize_mean
from equilidar.structures import GridSpec, PointCloudBatch, SparseVoxels
from equilidar.structures.offsets import from_lengths

GRID = GridSpec.from_range([0, -40, -3, 70.4, 40, 1], [0.05, 0.05, 0.1])
ALL_AROUND = GridSpec.from_range([-75.2, -75.2, -3, 75.2, 75.2, 5], [0.1, 0.1, 0.2])


def rows(quick: bool) -> Iterator[Row]:
    """Yield the rows of the sparse engine."""
    for batch_size in (1, 4):
        yield from _backbone_rows(batch_size, quick)
    yield _rulebook_row(quick)
    yield from _voxelize_rows(quick)


def _clouds(frame: frames.Frame, batch_size: int, quick: bool) -> tuple[PointCloudBatch, str]:
    step = 10 if quick else 1
    xyz, intensity = frame.xyz[::step], frame.intensity[::step]
    points = PointCloudBatch(
        xyz.repeat(batch_size, 1),
        intensity.repeat(batch_size, 1),
        from_lengths([len(xyz)] * batch_size),
        ("intensity",),
    )
    return points, f"{frame.name}, {len(xyz):,} points"


class _Backbone:
    """Forward and backward on one batch, and what it works through."""

    def __init__(self, batch_size: int, quick: bool) -> None:
        points, self.name = _clouds(frames.kitti(), batch_size, quick)
        self.net = VoxelBackBone8x(GRID, 4)
        self.voxels = voxelize_mean(points, GRID)
        self.note = f"{self.name}, batch {batch_size}, {len(self.voxels.coords):,} voxels"

    def forward(self) -> Tensor:
        self.voxels.rulebooks = {}
        return self.net(self.voxels).last.features

    def step(self) -> None:
        self.forward().square().mean().backward()

    def layers(self) -> list[tuple[SparseConvBase, Rulebook]]:
        """Return every convolution with its rulebook."""
        found: list[tuple[SparseConvBase, Rulebook]] = []
        z, y, x = GRID.shape
        voxels = SparseVoxels(
            self.voxels.coords, self.voxels.features, GRID, (z + 1, y, x), (1, 1, 1), self.voxels.batch_size
        )
        for conv in (module for module in self.net.modules() if isinstance(module, SparseConvBase)):
            if isinstance(conv, SparseConv3d):
                down = rulebook_cache.downsampling(voxels, conv.kernel_size, conv.stride, conv.padding)
                found.append((conv, down.rulebook))
                features = voxels.features.new_empty(len(down.coords), 0)
                voxels = SparseVoxels(down.coords, features, GRID, down.shape, (1, 1, 1), voxels.batch_size)
            else:
                found.append((conv, rulebook_cache.submanifold(voxels, conv.kernel_size)))
        return found

    def flops(self) -> int:
        """Count the rulebooks' multiply-adds, two each, of forward and backward; the input needs no gradient."""
        total = 0
        for i, (conv, rulebook) in enumerate(self.layers()):
            pairs = sum(rulebook.counts) + (rulebook.num_in if rulebook.center >= 0 else 0)
            total += 2 * pairs * conv.in_channels * conv.out_channels * (2 if i == 0 else 3)
        return total

    def held_bytes(self) -> int:
        """Count what a step must hold: each convolution's input, output and weight gradient, the largest layer's
        gradients of input and output, and the rulebooks, each once."""
        layers = self.layers()
        sizes = [
            (4 * rulebook.num_in * conv.in_channels, 4 * rulebook.num_out * conv.out_channels)
            for conv, rulebook in layers
        ]
        features = sum(map(sum, sizes)) + max(map(sum, sizes))
        weights = sum(4 * conv.weight.numel() for conv, _ in layers)
        # Convolutions of one stage share their rulebook.
        books = {id(rulebook): 8 * len(rulebook.in_rows) for rulebook in (pair[1] for pair in layers)}
        return features + weights + sum(books.values())


def _backbone_rows(batch_size: int, quick: bool) -> Iterator[Row]:
    backbone = _Backbone(batch_size, quick)
    note = f"forward + backward, {backbone.note}"
    flops = backbone.flops()
    # Threads are chosen as the peer's are.
    step = with_better_threads(backbone.step)

    def limit() -> float:
        return flops / gemm_flops_per_ms()

    yield Row(
        f"backbone_b{batch_size}",
        step,
        "spconv 2.3.8, Native; each with its faster of 1 and 2 threads",
        spconv_step(backbone.voxels),
        bar=2.0,
        limit=limit,
        note=f"{note}; limit: the rulebooks' multiply-adds at torch.mm's rate, the rest is narrow layers (16 and 32 "
        "channels), rulebooks, normalization",
    )
    yield Row(
        f"backbone_rate_b{batch_size}",
        step,
        "torch.mm (4096 x 64)(64 x 64)",
        limit=limit,
        share_bar=0.5,
        note=f"{flops / 1e9:.1f} GFLOP in the rulebooks, {note}",
    )
    if batch_size == 1:
        yield Row(
            "backbone_memory",
            None,
            "1.5 times inputs + outputs + gradients + rulebook",
            measure=lambda: (peak_bytes(backbone.step) / backbone.held_bytes(), 1.5),
            bar=1.0,
            unit="times",
            note=f"{backbone.held_bytes() / 1e6:.0f} MB, {note}",
        )


def _rulebook_row(quick: bool) -> Row:
    backbone = _Backbone(1, quick)

    def forward() -> None:
        with torch.no_grad():
            backbone.forward()

    return Row(
        "rulebook",
        backbone.layers,
        "the backbone's forward pass, rulebook included",
        forward,
        bar=1 / 0.15,
        note=f"all stages, {backbone.note}",
    )


def _voxelize_rows(quick: bool) -> Iterator[Row]:
    cropped, name = _clouds(frames.kitti(), 1, quick)
    yield _voxelize_row("voxelize", cropped, name, GRID, bar=3.0)
    yield _voxelize_row("voxelize_hard", cropped, name, GRID, max_points=5)
    # Full sweeps; KITTI's on the grid of its detectors, which sees the half in front.
    yield _voxelize_row("voxelize_sweep", *_clouds(frames.kitti_pair()[0], 1, quick), GRID)
    for dataset, frame in frames.others().items():
        yield _voxelize_row(f"voxelize_{dataset}", *_clouds(frame, 1, quick), ALL_AROUND)


def _voxelize_row(
    row: str,
    points: PointCloudBatch,
    name: str,
    grid: GridSpec,
    *,
    max_points: int | None = None,
    bar: float | None = None,
) -> Row:
    """Return a row of all points' means in sorted voxels, or of `max_points` in each as the peer has them."""
    width, num_voxels = 3 + points.features.shape[1], len(voxelize_mean(points, grid).coords)
    # What OpenPCDet allows for KITTI, more where more are there: the peer clears room for that many each time.
    most = max(40_000, num_voxels)

    def ours() -> SparseVoxels | HardVoxels:
        return voxelize_mean(points, grid) if max_points is None else voxelize_hard(points, grid, max_points, most)

    # Points are read once, and coords and features of voxels written once.
    moved = 4 * width * len(points.xyz) + num_voxels * (16 + 4 * width * (max_points or 1))
    what = "sorted voxels with the mean of all points" if max_points is None else "voxels in the order of first points"
    return Row(
        row,
        ours,
        f"spconv 2.3.8 PointToVoxel on the CPU, room for {most:,} voxels",
        _point_to_voxel(points, grid, most),
        bar=bar,
        limit=lambda: moved / copied_bytes_per_ms(),
        rounds=31,
        note=f"{name}, {num_voxels:,} voxels; {what}, the peer's are padded to 5 points in order of arrival, no mean; "
        "limit: points read and voxels written once, the rest is for a sort (or hash) in cache",
    )


def _point_to_voxel(points: PointCloudBatch, grid: GridSpec, max_voxels: int) -> Callable[[], object] | None:
    try:
        from spconv.pytorch.utils import PointToVoxel  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    table = torch.cat([points.xyz, points.features], 1)

    @functools.cache
    def generator() -> PointToVoxel:
        # When first called: it holds one integer for every cell of the grid.
        return PointToVoxel(list(grid.voxel_size), [*grid.low, *grid.high], table.shape[1], max_voxels, 5)

    return lambda: generator()(table)


def copied_bytes_per_ms() -> float:
    """Measure how fast torch copies what no cache holds: bytes read and written."""
    source = torch.ones(1 << 24)
    target = torch.empty_like(source)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        target.copy_(source)
        times.append(1000 * (time.perf_counter() - start))
    return 2 * 4 * len(source) / statistics.median(times)


def gemm_flops_per_ms() -> float:
    """Measure torch's GEMM rate where channels are those of a sparse backbone."""
    left, right = torch.randn(4096, 64), torch.randn(64, 64)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        torch.mm(left, right)
        times.append(1000 * (time.perf_counter() - start))
    return 2 * 4096 * 64 * 64 / statistics.median(times)
