"""Kernels on CUDA against spconv and against memory bandwidth: python benchmarks/gpu_bench.py

Times are medians over CUDA events of interleaved runs after a warm-up. `--device cpu --quick` only shows that every row
runs. Writes runs/bench_gpu.json with the rows of `benchmarks/harness.py`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.frames import Frame, kitti_pair, simulated
from benchmarks.harness import format_rows
from equilidar.backbones import VoxelBackBone8x
from equilidar.ops.flow_pairing import pair_by_flow
from equilidar.ops.sparse_engine_spconv import has_cuda
from equilidar.ops.voxelize import voxelize_mean
from equilidar.structures import GridSpec, PointCloudBatch, SparseVoxels

GRID = GridSpec.from_range([-51.2, -51.2, -3.0, 51.2, 51.2, 1.0], [0.05, 0.05, 0.1])
GOAL_PAIRING_MS = 1.0  # pairing and voxelizing two sweeps of 120,000 points on an H200


def milliseconds(functions: list[Callable[[], Any]], device: torch.device, rounds: int) -> list[float]:
    """Return the median time of each function, interleaved."""
    times: list[list[float]] = [[] for _ in functions]
    for turn in range(rounds + 3):
        for function, spent in zip(functions, times, strict=True):
            taken = _once(function, device)
            if turn >= 3:
                spent.append(taken)
    return [statistics.median(spent) for spent in times]


def _once(function: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cpu":
        begin = time.perf_counter()
        function()
        return 1000 * (time.perf_counter() - begin)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def copy_bandwidth(device: torch.device, rounds: int) -> float:
    """Return bytes per millisecond of a large copy, read and written bytes counted."""
    source = torch.empty((1 << 28) if device.type == "cuda" else (1 << 24), device=device)
    target = torch.empty_like(source)
    (taken,) = milliseconds([lambda: target.copy_(source)], device, rounds)
    return 2 * source.nbytes / taken


def cloud(frames: list[Frame], device: torch.device) -> PointCloudBatch:
    """Batch sweeps on the device."""
    xyz, intensity = torch.cat([f.xyz for f in frames]), torch.cat([f.intensity for f in frames])
    offsets = torch.tensor([0, *(len(f.xyz) for f in frames)]).cumsum(0)
    return PointCloudBatch(xyz, intensity, offsets, ("intensity",)).to(device)


def backbone_rows(voxels: SparseVoxels, rounds: int) -> Iterator[dict[str, Any]]:
    """Forward and backward of VoxelBackBone8x by our engine against spconv's, per precision."""
    device = voxels.features.device
    for name, dtype in (("fp32", None), ("fp16", torch.float16), ("bf16", torch.bfloat16)):
        steps = [
            _training_step(VoxelBackBone8x(GRID, 4, engine=engine).to(device), voxels, dtype)
            for engine in (["reference", "spconv"] if has_cuda() and device.type == "cuda" else ["reference"])
        ]
        ours, *peer = milliseconds(steps, device, rounds)
        note = f"{len(voxels.coords)} voxels, forward + backward, rulebooks built in each run"
        # Within twice spconv's time.
        yield _result(f"backbone_{name}", ours, "spconv on CUDA", peer[0] if peer else None, 0.5, None, note)


def _training_step(backbone: VoxelBackBone8x, voxels: SparseVoxels, dtype: torch.dtype | None) -> Callable[[], None]:
    def step() -> None:
        fresh = SparseVoxels(
            voxels.coords, voxels.features, voxels.grid, voxels.shape, voxels.stride, voxels.batch_size
        )
        with torch.autocast(voxels.features.device.type, dtype, enabled=dtype is not None):
            features = backbone(fresh)
        features.last.features.float().square().mean().backward()
        backbone.zero_grad(set_to_none=True)

    return step


def pairing_rows(pair: tuple[Frame, Frame], bandwidth: float, device: torch.device, rounds: int) -> Iterator[Any]:
    """Pair and voxelize two sweeps: the goal is a millisecond, the limit is reading and writing them once."""
    source, target = (cloud([frame], device) for frame in pair)
    valid = torch.ones(len(source.xyz), dtype=torch.bool, device=device)

    def pairing() -> Any:
        return pair_by_flow(source.xyz, source.xyz, valid, source.offsets, target.xyz, target.offsets, 1.0)

    def voxelizing() -> Any:
        return voxelize_mean(source, GRID), voxelize_mean(target, GRID)

    paired, voxelized, both = milliseconds([pairing, voxelizing, lambda: (pairing(), voxelizing())], device, rounds)
    moved = 16 * (len(source.xyz) + len(target.xyz))
    note = f"{len(source.xyz)} and {len(target.xyz)} points, radius 1 m"
    yield _result("pairing", paired, "copy bandwidth", None, None, moved / bandwidth / paired, note)
    yield _result("voxelize", voxelized, "copy bandwidth", None, None, moved / bandwidth / voxelized, note)
    peer = f"goal of {GOAL_PAIRING_MS} ms on an H200"
    yield _result("pairing_and_voxelize", both, peer, GOAL_PAIRING_MS, 1.0, 2 * moved / bandwidth / both, note)


def _result(
    name: str, ours: float, peer: str, peer_ms: float | None, bar: float | None, share: float | None, note: str
) -> dict[str, Any]:
    ratio = None if peer_ms is None else peer_ms / ours
    met = None if bar is None or ratio is None else ratio >= bar
    figures = {"ours_ms": ours, "peer": peer, "peer_ms": peer_ms, "ratio": ratio, "bar": bar}
    return {"name": name, **figures, "share_of_limit": share, "share_bar": None, "unit": "ms", "met": met, "note": note}


def main() -> int:
    """Print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="one round: does every row run?")
    parser.add_argument("--output", type=Path, default=Path("runs/bench_gpu.json"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    rounds = 1 if arguments.quick else 30
    bandwidth = copy_bandwidth(device, rounds)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}: copies {bandwidth / 1e9:.2f} TB/s, bytes read and written")
    frames = [simulated(i) for i in range(1 if arguments.quick else arguments.batch_size)]
    voxels = voxelize_mean(cloud(frames, device), GRID)
    results = [
        *pairing_rows(kitti_pair(), bandwidth, device, rounds),
        *backbone_rows(voxels, rounds),
    ]
    print(format_rows(results))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"device": name, "rows": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
