"""Run what needs a GPU, in stages of a few minutes each: python3 benchmarks/gpu_check.py [STAGE ...]

Works on a bare, offline machine that has Python 3.12, a CUDA build of torch and nvcc: what else is missing comes from
the archive that `make bundle` wrote (--bundle). Uses the standard library alone until the archive is unpacked.

    build       compile the kernels for this card
    ops         every op on CUDA against its reference, the backbone by each engine, no hidden host synchronisation
    memcheck    compute-sanitizer over small cases of every op: accesses out of bounds
    racecheck   the same: races in shared memory
    bench       kernels against spconv on CUDA and against memory bandwidth; writes runs/bench_gpu.json
    throughput  pretraining on full simulated 64-beam sweeps: pairs/s, peak memory, share of time by stage
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "runs" / "gpu_site"
LIMIT = 480  # seconds a stage may take

# Where tests are marked `gpu`. Other tests need packages that such a machine lacks.
GPU_TESTS = ["tests/ops", "tests/backbones", "tests/training/test_host_sync.py"]
_PYTEST = ["{python}", "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
# Our own kernels alone: those of PyTorch would take most of the time.
_SANITIZER = ["compute-sanitizer", "--error-exitcode=9", "--target-processes=all", "--kernel-regex", "kns=equilidar"]
# The ops' own tests hold small cases of each: empty, one point, an empty item, duplicates, out of range.
_SMALL_CASES = [*_PYTEST, "-p", "tests.kernels.kernels_alone", "tests/ops", "-k", "not many"]

STAGES: dict[str, list[list[str]]] = {
    "build": [["{python}", "setup.py", "-q", "build_ext", "--inplace"]],
    "ops": [[*_PYTEST, *GPU_TESTS]],
    "memcheck": [[*_SANITIZER, "--tool=memcheck", *_SMALL_CASES]],
    "racecheck": [[*_SANITIZER, "--tool=racecheck", *_SMALL_CASES]],
    "bench": [["{python}", "benchmarks/gpu_bench.py"]],
    "throughput": [
        ["{python}", "benchmarks/throughput.py", "--device=cuda", "--deterministic", "--batch-size", "8", "16", "32"]
    ],
}


def environment(bundle: Path | None) -> dict[str, str]:
    """Return the environment of the stages, the archive unpacked and on the path."""
    if bundle is not None and not (SITE / ".complete").exists():
        SITE.mkdir(parents=True, exist_ok=True)
        with tarfile.open(bundle) as archive:
            archive.extractall(SITE, filter="data")
        (SITE / ".complete").touch()
    places = [str(ROOT), str(ROOT / "cuda_ext"), *([str(SITE)] if SITE.exists() else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONUNBUFFERED": "1", "EQUILIDAR_CUDA": "1"}


def run_stage(name: str, env: dict[str, str]) -> bool:
    """Run the commands of a stage; tell whether all of them succeeded in time."""
    begin = time.monotonic()
    for template in STAGES[name]:
        command = [sys.executable if part == "{python}" else part for part in template]
        if shutil.which(command[0]) is None:
            print(f"== {name}: {command[0]} is not installed", flush=True)
            return False
        folder = ROOT / "cuda_ext" if name == "build" else ROOT
        try:
            left = LIMIT - (time.monotonic() - begin)
            code = subprocess.run(command, cwd=folder, env=env, timeout=left, check=False).returncode
        except subprocess.TimeoutExpired:
            print(f"== {name}: stopped after {LIMIT} s", flush=True)
            return False
        if code != 0:
            print(f"== {name}: {' '.join(command)} exited with {code}", flush=True)
            return False
    print(f"== {name}: passed in {time.monotonic() - begin:.0f} s", flush=True)
    return True


def main() -> int:
    """Run the stages that are asked for, all if none; exit code 1 where one fails, 0 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--bundle", type=Path, help="archive of `make bundle`, where packages are missing")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.stages if name not in STAGES]
    if unknown:
        parser.error(f"unknown stage {unknown[0]!r}: choose from {', '.join(STAGES)}")
    if shutil.which("nvidia-smi") is None:
        print("skipped: no GPU here (no nvidia-smi)")
        return 0
    subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv"], check=False)
    env = environment(arguments.bundle)
    # Later stages say what they can even where an earlier one fails.
    passed = [run_stage(name, env) for name in arguments.stages or STAGES]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
