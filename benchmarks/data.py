"""How fast sweeps are loaded, raw and packed, against OpenPCDet's way: python benchmarks/data.py [--sweeps 64] ...

Prints pairs/s of each loader alone and, beside it, with all that has to happen to a pair before the network sees it:
the peer augments and voxelizes in its workers, this package on the training device (views a and b and the source sweep:
three, the peer two). All loaders read the same simulated sweeps, through the page cache, in epochs long enough that the
start of workers does not count. Rounds are interleaved, medians shown; processor time (of all processes) is shown as
well, because other load counts little there.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from openpcdet_loading import POINT_RANGE, VOXEL_SIZE, VoxelizedPairs, make_openpcdet_loader
from torch.utils.data import DataLoader, Dataset

from equilidar.augment.group import SpatialGroup
from equilidar.augment.pipeline import ViewPipeline
from equilidar.data.folder import FolderPairs
from equilidar.data.loading import LoadedBatch, make_loader
from equilidar.data.packed import PackedPairs
from equilidar.data.packing import Packing
from equilidar.data.simulator import make_scene, make_sensor, simulate_sweep
from equilidar.flow import RigidFlow
from equilidar.ops.voxelize import voxelize_mean
from equilidar.structures import GridSpec

GRID = GridSpec.from_range(POINT_RANGE.tolist(), VOXEL_SIZE)
PIPELINE = ViewPipeline(GRID, SpatialGroup())
PEER = "OpenPCDet's way"


@dataclass
class Case:
    """A way of loading, and its rates: pairs per second, and milliseconds of processor time for each pair."""

    name: str
    workers: int
    make: Callable[[], DataLoader]
    rates: dict[str, list[float]] = field(default_factory=dict)
    costs: dict[str, list[float]] = field(default_factory=dict)


class ManyTimes(Dataset):
    """A dataset over and over, so that an epoch does not end while it is measured."""

    def __init__(self, data: Any, times: int = 400) -> None:
        self._data, self._length = data, times * len(data)
        self.name, self.contract, self.keys = "many", getattr(data, "contract", None), range(self._length)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self._data[index % len(self._data)]


def write_sweeps(root: Path, number: int) -> list[Path]:
    """Write consecutive full sweeps of a 64-beam sensor and their poses."""
    sensor = make_sensor("hdl64e", azimuth_steps=2048)
    scene = make_scene(0, 0)
    poses, paths = [], []
    for frame in range(number):
        sweep = simulate_sweep(scene, sensor, frame)
        paths.append(root / f"{frame:04d}.bin")
        np.column_stack([sweep.xyz, sweep.intensity]).astype("<f4").tofile(paths[-1])
        poses.append(sweep.world_T_sensor[:3].reshape(-1))
    np.savetxt(root / "poses.txt", np.stack(poses))
    return paths


def to_device(loaded: Any, device: str) -> None:
    """Prepare a batch for the network: of ours, all; of the peer's, what its workers have not done."""
    if not isinstance(loaded, LoadedBatch):
        for array in itertools.chain.from_iterable(frame.values() for frame in loaded):
            torch.from_numpy(array).to(device, torch.float32)
        return
    assert loaded.batch is not None
    batch = loaded.batch.to(device)
    views = PIPELINE(batch, RigidFlow()(batch))
    assert views.source is not None
    for view in (views.a, views.b, views.source.view):
        voxelize_mean(view.points, GRID)


def processor_time() -> float:
    """Return the seconds of this process and its workers."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def measure(case: Case, what: str, consume: Callable[[Any], None], batch_size: int, seconds: float) -> None:
    """Run for some seconds, after a warm-up in which workers start and read ahead."""
    batches = iter(case.make())
    for _ in range(3 * case.workers + 2):
        consume(next(batches))
    number, cost, begin = 0, processor_time(), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        consume(next(batches))
        number += batch_size
    elapsed = time.perf_counter() - begin
    case.rates.setdefault(what, []).append(number / elapsed)
    case.costs.setdefault(what, []).append((processor_time() - cost) / number * 1e3)


def table(cases: list[Case], device: str) -> str:
    """Return medians, and ratios to the peer with as many workers."""
    lines = [
        f"| loader | workers | alone: pairs/s | ratio | CPU ms a pair | with the pipeline on {device}: pairs/s | ratio "
        "| CPU ms a pair |",
        "|---|---|---|---|---|---|---|---|",
    ]
    peers = {case.workers: case for case in cases if case.name == PEER}
    for case in cases:
        cells = [case.name, str(case.workers)]
        for what in ("alone", "whole"):
            rate, cost = statistics.median(case.rates[what]), statistics.median(case.costs[what])
            peer = statistics.median(peers[case.workers].rates[what])
            cells += [f"{rate:.0f}", f"{rate / peer:.1f}", f"{cost:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = arguments.batch_size

    def consume(loaded: Any) -> None:
        to_device(loaded, device)
        if device == "cuda":
            torch.cuda.synchronize()

    with tempfile.TemporaryDirectory() as folder:
        log, store = Path(folder) / "log", Path(folder) / "store"
        log.mkdir()
        paths = write_sweeps(log, arguments.sweeps)
        raw = FolderPairs(log)
        Packing(raw, store, "").run()
        packed = PackedPairs(store)

        def ours(data: FolderPairs | PackedPairs, workers: int) -> Callable[[], DataLoader]:
            return lambda: make_loader(ManyTimes(data), "pairs", size, seed=0, num_workers=workers)

        peer = ManyTimes(VoxelizedPairs(paths))
        cases = []
        for workers in arguments.workers:
            cases += [
                Case(PEER, workers, lambda w=workers: make_openpcdet_loader(peer, size, w)),
                Case("raw", workers, ours(raw, workers)),
                Case("packed", workers, ours(packed, workers)),
            ]
        for _ in range(arguments.rounds):
            for case in cases:
                measure(case, "alone", lambda loaded: None, size, arguments.seconds)
                measure(case, "whole", consume, size, arguments.seconds)
        points = statistics.mean(path.stat().st_size // 16 for path in paths)
    print(f"{arguments.sweeps} sweeps of {points:.0f} points on average, batches of {size} pairs, {device}, "
          f"{torch.get_num_threads()} thread(s) in the training process")  # fmt: skip
    print(table(cases, device))


if __name__ == "__main__":
    main()
