"""Time the KITTI evaluator on a made-up set as large as the validation split: python benchmarks/kitti_evaluator.py"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np

from equilidar.evaluation.kitti import KittiEvaluation
from equilidar.evaluation.kitti_files import KITTI_CLASSES, KittiTable, read_labels, read_results, write_files
from equilidar.evaluation.kitti_rows import project_boxes

CAMERA = np.array([[721.5, 0, 609.6, 44.9], [0, 721.5, 172.9, 0.2], [0, 0, 1, 0.003]])
SIZES = {"car": (1.53, 1.63, 3.88), "pedestrian": (1.76, 0.66, 0.84), "cyclist": (1.74, 0.60, 1.76)}
CLASSES = tuple(SIZES)


def rows_of(
    location: np.ndarray, size: np.ndarray, rotation_y: np.ndarray, kind: np.ndarray, score: np.ndarray
) -> np.ndarray:
    """Return the 15 numbers of each row; the box in the image is that of the corners."""
    image_box, _ = project_boxes(location, size, rotation_y, CAMERA, (1242, 375))
    alpha = np.remainder(rotation_y - np.arctan2(location[:, 0], location[:, 2]) + math.pi, 2 * math.pi) - math.pi
    zero = np.zeros(len(kind))
    return np.stack([zero, zero, alpha, *image_box.T, *size.T, *location.T, rotation_y, score], 1)


def make_set(num_frames: int, rng: np.random.Generator) -> tuple[KittiTable, KittiTable]:
    """Return ground truth (about 10 objects a frame) and detections (about 30: objects, moved, and clutter)."""
    frames = tuple(f"{index:06d}" for index in range(num_frames))
    per_frame = rng.poisson(10, num_frames)
    offsets = np.concatenate([[0], np.cumsum(per_frame)])
    num = int(offsets[-1])
    kind = rng.choice(3, num, p=(0.7, 0.2, 0.1))
    location = np.stack([rng.uniform(-15, 15, num), rng.normal(1.6, 0.1, num), rng.uniform(6, 60, num)], 1)
    size = np.array(list(SIZES.values()))[kind] * rng.uniform(0.9, 1.1, (num, 3))
    rotation_y = rng.uniform(-math.pi, math.pi, num)
    truth = rows_of(location, size, rotation_y, kind, np.full(num, np.nan))
    truth[:, 1] = rng.choice(3, num)

    # Each object three times, the first near, the others ever farther off; the same number for each frame's objects.
    parts = []
    for spread, confidence in ((0.1, 0.7), (0.6, 0.4), (5.0, 0.2)):
        moved = location + rng.normal(0, 1, (num, 3)) * (spread, 0.05, spread)
        moved[:, 2] = np.maximum(moved[:, 2], 4)
        score = (confidence + rng.normal(0, 0.15, num)).clip(0, 1)
        parts.append(rows_of(moved, size * rng.uniform(0.95, 1.05, (num, 3)), rotation_y, kind, score))
    found = np.stack(parts, 1).reshape(-1, 15)
    codes = np.array([KITTI_CLASSES.index(name) for name in CLASSES])[kind]
    return KittiTable(frames, offsets, codes, truth), KittiTable(frames, offsets * 3, codes.repeat(3), found)


def main() -> None:
    """Print the seconds of parsing, compiling and computing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=3769)
    frames = parser.parse_args().frames
    rng = np.random.default_rng(0)
    truth, found = make_set(frames, rng)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder) / "gt", truth)
        write_files(Path(folder) / "det", found)
        start = time.perf_counter()
        tables = read_labels(Path(folder) / "gt"), read_results(Path(folder) / "det")
    parsed = time.perf_counter()
    KittiEvaluation(*make_set(3, rng)).average_precision()
    compiled = time.perf_counter()
    evaluation = KittiEvaluation(*tables)
    overlapped = time.perf_counter()
    figures = evaluation.average_precision()
    done = time.perf_counter()
    print(f"{frames} frames, {len(truth)} objects, {len(found)} detections, one thread")
    print(f"parsing files     {parsed - start:7.2f} s")
    print(f"compiling         {compiled - parsed:7.2f} s (0 to 1 from the cache)")
    print(f"overlaps          {overlapped - compiled:7.2f} s")
    print(f"matching, AP      {done - overlapped:7.2f} s")
    print(f"in all, compiled  {done - compiled + parsed - start:7.2f} s")
    print("3D R40 " + ", ".join(f"{name} {figures[name]['3d']['AP_R40'][1]:.2f}" for name in CLASSES))


if __name__ == "__main__":
    main()
