"""Pretraining throughput: pairs/s, peak memory and share of time by stage: python benchmarks/throughput.py

E-SSL3D with VoxelBackBone8x on full simulated 64-beam sweeps, by the settings of `+experiment=essl3d_simulator`.
Batches lie in the device's memory beforehand: what is measured is the training step (flow, views, voxelization,
encoding, objectives, gradients, optimizer), not the loader, which `make bench-data` measures.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.stopwatch import Stopwatch

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("flow", "views", "encode", "objectives", "backward", "optimizer")


class Step:
    """One training step, cut into stages. `clock(stage)` brackets each of them."""

    def __init__(self, overrides: list[str], device: torch.device, precision: torch.dtype | None) -> None:
        from hydra import compose, initialize_config_dir
        from hydra.utils import instantiate

        from equilidar.objectives import CompositeObjective
        from equilidar.training.ema import TargetNetwork, follow

        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            config = compose("pretrain", ["+experiment=essl3d_simulator", *overrides])
        self.dataset = instantiate(config.dataset, _convert_="all")
        self.flow = instantiate(config.flow, _convert_="all")
        self.pipeline = instantiate(config.augment, _convert_="all")
        torch.manual_seed(0)
        self.backbone = instantiate(config.backbone, _convert_="all")(
            in_channels=3 + len(self.dataset.contract.channels)
        )
        parts = instantiate(config.objective, _convert_="all")
        self.objective = CompositeObjective.from_partials(parts, features=self.backbone.feature_info).to(device)
        self.backbone.to(device)
        self.target = TargetNetwork(self.backbone).to(device)
        parameters = [*self.backbone.parameters(), *(p for p in self.objective.parameters() if p.requires_grad)]
        self.optimizer = instantiate(config.optimizer, _convert_="all")(parameters)
        self._follow: Callable[..., None] = follow
        self.device, self.precision = device, precision

    def batches(self, batch_size: int, number: int) -> list[Any]:
        """Return batches on the device."""
        from equilidar.structures import SweepPairBatch

        made = []
        for first in range(0, batch_size * number, batch_size):
            pairs = [self.dataset[i % len(self.dataset)] for i in range(first, first + batch_size)]
            made.append(SweepPairBatch.collate(pairs, list(range(first, first + batch_size))).to(self.device))
        return made

    def __call__(self, batch: Any, clock: Callable[[str], Any]) -> None:
        """Run one step."""
        from equilidar.training.encoding import encode_views

        with clock("flow"):
            flow = self.flow(batch)
        with clock("views"):
            views = self.pipeline(batch, flow)
        autocast = torch.autocast(self.device.type, self.precision, enabled=self.precision is not None)
        with clock("encode"), autocast:
            features = encode_views(views, self.backbone, cast(Any, self.target.network))
        with clock("objectives"):
            loss = self.objective(features).total()
        with clock("backward"):
            loss.backward()
        with clock("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._follow([(self.backbone, self.target.network), *self.objective.ema_pairs()], 0.999)


def measure(step: Step, batches: list[Any], steps: int) -> dict[str, Any]:
    """Time whole steps without waiting inside them, then a few with a wait after each stage."""
    on_gpu = step.device.type == "cuda"
    wait: Callable[[], None] = torch.cuda.synchronize if on_gpu else (lambda: None)

    @contextmanager
    def free(_: str) -> Iterator[None]:
        yield

    spent: dict[str, list[float]] = {stage: [] for stage in STAGES}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        wait()
        begin = time.perf_counter()
        yield
        wait()
        spent[stage].append(time.perf_counter() - begin)

    for batch in batches:  # rulebooks, autotuning, first allocation
        step(batch, free)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    wait()
    watch = Stopwatch()
    for i in range(steps):
        step(batches[i % len(batches)], free)
    wait()
    spent_in_all = watch.lap()
    for batch in batches:
        step(batch, timed)
    whole = sum(statistics.median(times) for times in spent.values())
    pairs = batches[0].batch_size
    return {
        "pairs_per_second": pairs * steps / spent_in_all.wall,
        "cpu_seconds_per_pair": spent_in_all.cpu / (pairs * steps),
        "batch_size": pairs,
        "points_per_pair": len(batches[0].source.xyz) // pairs + len(batches[0].target.xyz) // pairs,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        "share": {stage: statistics.median(times) / whole for stage, times in spent.items()},
    }


def main() -> int:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batches", type=int, default=4, help="different batches that are used in turn")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], help="bf16 on a GPU, fp32 elsewhere")
    parser.add_argument("--deterministic", action="store_true", help="also with deterministic=true, for its cost")
    parser.add_argument("--output", type=Path, default=Path("runs/throughput.json"))
    parser.add_argument("overrides", nargs="*", help="of the config: backbone.engine=reference, grid=sim_small ...")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    precision = arguments.precision or ("bf16" if device.type == "cuda" else "fp32")
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    results = []
    for batch_size in arguments.batch_size:
        for deterministic in [False, True] if arguments.deterministic else [False]:
            torch.use_deterministic_algorithms(deterministic)
            step = Step(arguments.overrides, device, dtype)
            found = measure(step, step.batches(batch_size, arguments.batches), arguments.steps)
            found |= {"device": name, "precision": precision, "deterministic": deterministic}
            results.append(found)
            shares = ", ".join(f"{stage} {share:.0%}" for stage, share in found["share"].items())
            costs = "" if found["peak_gib"] is None else f", peak {found['peak_gib']:.1f} GiB"
            costs += f", {found['cpu_seconds_per_pair']:.3f} s of the processor for each pair"
            mode = ", deterministic" if deterministic else ""
            print(f"{name}, {precision}{mode}, batch {batch_size}: {found['pairs_per_second']:.2f} pairs/s{costs}")
            print(f"  {shares}", flush=True)
            # Now: a larger batch may not fit.
            arguments.output.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
