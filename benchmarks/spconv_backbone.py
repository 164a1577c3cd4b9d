"""VoxelBackBone8x and VoxelResBackBone8x in plain spconv, as OpenPCDet builds them: what users run today."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from equilidar.structures import SparseVoxels

_DOWN: dict[str, tuple[Any, Any, Any]] = {
    "2": ((3, 3, 3), 2, 1),
    "3": ((3, 3, 3), 2, 1),
    "4": ((3, 3, 3), 2, (0, 1, 1)),
}


def spconv_step(voxels: SparseVoxels) -> Callable[[], None] | None:
    """Return a function that runs forward and backward on `voxels`; None where spconv is not installed.

    spconv runs with one thread or with two, whichever is faster here. (With two its CPU build gives wrong rows.)
    """
    spconv = import_spconv()
    if spconv is None:
        return None
    net = _network(spconv, voxels.features.shape[1])
    z, y, x = voxels.grid.shape

    def step() -> None:
        tensor = spconv.SparseConvTensor(voxels.features, voxels.coords, [z + 1, y, x], voxels.batch_size)
        net(tensor).features.square().mean().backward()

    return with_better_threads(step)


def import_spconv() -> Any | None:
    """Return `spconv.pytorch`, ready for a CPU; None where it is not installed."""
    try:
        import spconv.pytorch as spconv  # pyright: ignore[reportMissingImports]
        import spconv.pytorch.ops as ops  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    # Its CPU build asks for a CUDA stream in the backward pass, and uses it for nothing.
    ops.get_current_stream = lambda: 0
    return spconv


def spconv_network(in_channels: int, residual: bool) -> nn.Module | None:
    """Return SECOND's or CenterPoint's sparse encoder in spconv; None where it is not installed."""
    spconv = import_spconv()
    if spconv is None:
        return None
    return _residual_network(spconv, in_channels) if residual else _network(spconv, in_channels)


def _residual_network(spconv: Any, in_channels: int) -> nn.Module:
    """Build VoxelResBackBone8x; its residual convolutions without the bias, which spconv refuses on a CPU."""
    algo = spconv.ConvAlgo.Native

    class Residual(spconv.SparseModule):
        def __init__(self, channels: int, key: str) -> None:
            super().__init__()
            self.convs = nn.ModuleList(
                spconv.SubMConv3d(channels, channels, 3, padding=1, bias=False, indice_key=f"res{key}", algo=algo)
                for _ in range(2)
            )
            self.norms = nn.ModuleList(nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01) for _ in range(2))

        def forward(self, x: Any) -> Any:
            first = self.convs[0](x)
            first = first.replace_feature(self.norms[0](first.features).relu())
            second = self.convs[1](first)
            return second.replace_feature((self.norms[1](second.features) + x.features).relu())

    def down(inside: int, outside: int, kernel: Any, stride: Any, padding: Any, key: str) -> list[nn.Module]:
        conv = spconv.SparseConv3d(inside, outside, kernel, stride, padding, bias=False, indice_key=key, algo=algo)
        return [conv, nn.BatchNorm1d(outside, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]

    stem = spconv.SubMConv3d(in_channels, 16, 3, padding=1, bias=False, indice_key="subm1", algo=algo)
    layers = [stem, nn.BatchNorm1d(16, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]
    layers += [Residual(16, "1"), Residual(16, "1")]
    for stage, inside, outside in (("2", 16, 32), ("3", 32, 64), ("4", 64, 128)):
        layers += down(inside, outside, *_DOWN[stage], f"spconv{stage}")
        layers += [Residual(outside, stage), Residual(outside, stage)]
    layers += down(128, 128, (3, 1, 1), (2, 1, 1), 0, "spconv_down2")
    return spconv.SparseSequential(*layers)


def _network(spconv: Any, in_channels: int) -> nn.Module:
    algo = spconv.ConvAlgo.Native

    def block(conv: nn.Module, channels: int) -> list[nn.Module]:
        return [conv, nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]

    def submanifold(inside: int, outside: int, key: str) -> list[nn.Module]:
        conv = spconv.SubMConv3d(inside, outside, 3, padding=1, bias=False, indice_key=f"subm{key}", algo=algo)
        return block(conv, outside)

    def strided(inside: int, outside: int, kernel: Any, stride: Any, padding: Any, key: str) -> list[nn.Module]:
        conv = spconv.SparseConv3d(inside, outside, kernel, stride, padding, bias=False, indice_key=key, algo=algo)
        return block(conv, outside)

    layers = [*submanifold(in_channels, 16, "1"), *submanifold(16, 16, "1")]
    for stage, inside, outside in (("2", 16, 32), ("3", 32, 64), ("4", 64, 64)):
        kernel, stride, padding = _DOWN[stage]
        layers += strided(inside, outside, kernel, stride, padding, f"spconv{stage}")
        layers += [*submanifold(outside, outside, stage), *submanifold(outside, outside, stage)]
    layers += strided(64, 128, (3, 1, 1), (2, 1, 1), 0, "spconv_down2")
    return spconv.SparseSequential(*layers)


def better_threads(run: Callable[[], object]) -> int:
    """Return 1 or 2, the number of threads with which `run` is found faster."""

    def seconds(num: int) -> float:
        with threads(num):
            start = time.perf_counter()
            run()
            return time.perf_counter() - start

    seconds(1)
    # Alternating, and the best of all: other work on the machine must not choose.
    return min((seconds(num), num) for _ in range(3) for num in (1, 2))[1]


def with_better_threads(step: Callable[[], None]) -> Callable[[], None]:
    """Return a function that runs `step` with one or two threads, whichever is found faster when it is first called."""
    best = 0

    def run() -> None:
        nonlocal best
        best = best or better_threads(step)
        with threads(best):
            step()

    return run


@contextmanager
def threads(num: int) -> Iterator[None]:
    """Let torch use so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)
