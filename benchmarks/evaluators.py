"""Time the evaluators, and the official tools where installed, on made-up sets: python benchmarks/evaluators.py

Each measurement is a process of its own: compiling (a small set, without any cached machine code), reading files and
computing are timed apart, and the peak of its memory is its own. Seconds are those of the processor, summed over its
processes, and for all of reading and computing also those on the wall. Sizes are those of the validation sets for
nuScenes (6019 samples) and Waymo (39987 frames); the official tools run on a part of the frames and are scaled up by
their number, as their rows say. Options: --only NAME ..., --frames FRACTION, --peer FRACTION (0: no official tools).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from evaluator_peers import PEERS
from evaluator_sets import SETS
from stopwatch import Seconds, Stopwatch, peak_megabytes

WARM_UP_FRAMES = 3
HEADER = ("compile", "parse", "compute", "in all", "wall")


def measure(name: str, folder: Path, small: Path) -> dict[str, Seconds]:
    """Return the time of compiling, parsing and computing."""
    read, compute = stages(name)
    watch = Stopwatch()
    compute(*read(small))
    compiled = watch.lap()
    files = read(folder)
    parsed = watch.lap()
    compute(*files)
    return {"compile": compiled, "parse": parsed, "compute": watch.lap()}


def stages(name: str):
    """Return (read, compute): from a folder to the arguments of the evaluation, and the evaluation."""
    if name == "nuscenes":
        from equilidar.evaluation.nuscenes import evaluate_nuscenes
        from equilidar.evaluation.nuscenes_files import read_ground_truth_boxes, read_submission

        return lambda f: (read_ground_truth_boxes(f / "gt.json"), read_submission(f / "det.json")), evaluate_nuscenes
    if name == "waymo":
        from equilidar.evaluation.waymo import evaluate_waymo, prepare_ground_truth, waymo_curves
        from equilidar.evaluation.waymo_files import read_waymo

        return lambda f: (
            prepare_ground_truth(read_waymo(f / "gt.bin", is_detection=False)),
            read_waymo(f / "det.bin", is_detection=True),
        ), lambda truth, found: evaluate_waymo(waymo_curves(truth, found))
    if name == "argoverse2":
        from equilidar.evaluation.argoverse2 import evaluate_argoverse2
        from equilidar.evaluation.argoverse2_files import read_annotations, read_detections

        return lambda f: (read_annotations(f / "gt.feather"), read_detections(f / "det.feather")), evaluate_argoverse2
    from equilidar.evaluation.scene_flow import evaluate_scene_flow
    from equilidar.evaluation.scene_flow_files import open_flow, read_examples

    # One example is held at a time, so reading and computing interleave: both count as computing.
    def read(folder: Path) -> tuple:
        return (open_flow(folder / "gt", is_estimate=False), open_flow(folder / "det", is_estimate=True))

    return read, lambda truth, estimate: evaluate_scene_flow(read_examples(truth, estimate))


def run(arguments: list[str], cache: str) -> tuple[dict[str, Seconds], float] | None:
    """Run a measurement in a process of its own; return times and peak memory, None where a package is missing."""
    # One thread of each library: the files are read and evaluated by one core.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = os.environ | threads | {"NUMBA_CACHE_DIR": cache}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 3:
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    result = json.loads(done.stdout.splitlines()[-1])
    return {stage: Seconds(*seconds) for stage, seconds in result["times"].items()}, result["peak"]


def compare(name: str, fraction: float, peer_fraction: float) -> None:
    """Print the row of one evaluator and that of the official tool."""
    made = SETS[name]
    frames = max(WARM_UP_FRAMES, round(made.frames * fraction))
    part = max(WARM_UP_FRAMES, round(frames * peer_fraction))
    with tempfile.TemporaryDirectory() as place:
        folders = {key: Path(place) / key for key in ("whole", "part", "small")}
        for key, num in (("whole", frames), ("part", part), ("small", WARM_UP_FRAMES)):
            folders[key].mkdir()
            if key != "part" or peer_fraction:
                made.write(folders[key], num, np.random.default_rng(0))
        print(f"{name}: {frames} {made.unit}, each {made.content}", flush=True)
        own = run(["--measure", name, str(folders["whole"]), str(folders["small"])], f"{place}/cache")
        assert own is not None
        print("  " + "seconds of the processor".ljust(36) + "".join(f"{h:>8}" for h in HEADER) + f"{'peak':>9}")
        print(row("equilidar", *own), flush=True)
        if not peer_fraction:
            return
        peer = run(["--measure-peer", name, str(folders["part"])], f"{place}/cache")
        if peer is None:
            print(f"  {made.peer} is not installed: not compared", flush=True)
            return
        scaled = {stage: seconds * (frames / part) for stage, seconds in peer[0].items()}
        print(row(made.peer if part == frames else f"{made.peer}, from {part} {made.unit}", scaled, peer[1]))
        ratio = scaled["compute"].cpu / own[0]["compute"].cpu
        print(f"  ratio: compute {ratio:.1f}x, in all {total(scaled).cpu / total(own[0]).cpu:.1f}x", flush=True)


def total(times: dict[str, Seconds]) -> Seconds:
    """Return the time of parsing and computing."""
    return times["parse"] + times["compute"]


def row(name: str, times: dict[str, Seconds], peak: float) -> str:
    """Return one line of the table."""
    compiling = f"{times['compile'].cpu:.1f}" if "compile" in times else "-"
    both = total(times)
    seconds = "".join(f"{value:>8.1f}" for value in (times["parse"].cpu, times["compute"].cpu, both.cpu, both.wall))
    return f"  {name:<36}{compiling:>8}{seconds}{peak:>6.0f} MB"


def show(times: dict[str, Seconds]) -> None:
    """Print a measurement for the process that asked for it."""
    pairs = {stage: (seconds.wall, seconds.cpu) for stage, seconds in times.items()}
    print(json.dumps({"times": pairs, "peak": peak_megabytes()}))


def main() -> None:
    """Measure and print; or, in a process of its own, measure one thing and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--frames", type=float, default=1.0, help="fraction of the validation set's frames")
    parser.add_argument("--peer", type=float, default=0.1, help="fraction of these for the official tools; 0: none")
    parser.add_argument("--measure", nargs=3, metavar=("NAME", "FOLDER", "SMALL"), help=argparse.SUPPRESS)
    parser.add_argument("--measure-peer", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, folder, small = options.measure
        show(measure(name, Path(folder), Path(small)))
    elif options.measure_peer:
        name, folder = options.measure_peer
        try:
            show(PEERS[name](Path(folder)))
        except ImportError:
            raise SystemExit(3) from None
    else:
        for name in options.only:
            compare(name, options.frames, options.peer)


if __name__ == "__main__":
    main()
