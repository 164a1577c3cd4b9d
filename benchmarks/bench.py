"""Measure the kernels against what users run today, on two cores: python benchmarks/bench.py

Prints one table and writes the rows as JSON: name, ours_ms, peer, peer_ms, ratio = peer / ours, bar (least ratio asked
for), share_of_limit (of copy bandwidth or of torch's own GEMM rate).
"""

import argparse
import importlib
import json
import os
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path

# Before torch is loaded: threads that spin while they wait take the core from whatever else the machine runs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import rows as families
from benchmarks.harness import Row, format_rows, run


def all_rows(quick: bool) -> Iterator[Row]:
    """Yield the rows of every module in `benchmarks/rows`."""
    for module in pkgutil.iter_modules(families.__path__):
        yield from importlib.import_module(f"benchmarks.rows.{module.name}").rows(quick)


def main(words: list[str] | None = None) -> int:
    """Run the rows; exit code 1 where a bar is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--quick", action="store_true", help="one round on small inputs: does every row run?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("runs/bench.json"))
    arguments = parser.parse_args(words)

    import torch

    torch.set_num_threads(arguments.threads)
    results = []
    for row in all_rows(arguments.quick):
        if arguments.only in row.name:
            results.append(run(row, rounds=1 if arguments.quick else None))
            print(f"{row.name} ...", file=sys.stderr, flush=True)
    print(format_rows(results))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=1))
    return int(any(result["met"] is False for result in results))


if __name__ == "__main__":
    sys.exit(main())
