"""What gt sampling costs a loader worker: python benchmarks/gt_sampling.py [--root KITTI_OBJECT_FOLDER --split train].

Without a folder: simulated sweeps. One process, one thread; times are processor time of this process, so that other
load counts little. The database is mapped into memory: what is read of it is shared between workers.
"""

import argparse
import tempfile
import time
from pathlib import Path

from equilidar.data.gt_database import GtDatabase, build_gt_database
from equilidar.data.gt_sampling import GtSampling
from equilidar.data.kitti_object import KittiObject
from equilidar.data.simulator import SimulatedSweeps
from equilidar.data.subsets import LabelledSubset

COUNTS = {"Car": 20, "Pedestrian": 15, "Cyclist": 15}


def main() -> None:
    """Print the size of a database, how long it takes to open, and sweeps/s of reading and of pasting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="KITTI object data")
    parser.add_argument("--split", default="all")
    parser.add_argument("--sweeps", type=int, default=40)
    arguments = parser.parse_args()
    street = {"name": "hdl64e", "azimuth_steps": 1024}
    dataset = (
        KittiObject(arguments.root, arguments.split)
        if arguments.root
        else SimulatedSweeps(street, 10, 4, seed=1000, frame_step=16)
    )
    train = LabelledSubset(dataset)
    with tempfile.TemporaryDirectory() as folder:
        path = build_gt_database(train, Path(folder) / "gt.arrow").path
        begin = time.process_time()
        database = GtDatabase(path)
        opened = time.process_time() - begin
        size = f"{path.stat().st_size / 1e6:.1f} MB in one file"
        print(f"{len(database)} objects of {len(train)} sweeps, {size}, opened in {1e3 * opened:.1f} ms")
        paste = GtSampling(train, database=path, counts=COUNTS)
        items = [train[index] for index in range(min(arguments.sweeps, len(train)))]
        paste(items[0], 0)
        begin, num = time.process_time(), 0
        for seed, item in enumerate(items):
            num += len(paste(item, seed).boxes) - len(item.boxes)
        spent = (time.process_time() - begin) / len(items)
    points = sum(len(item.sweep.xyz) for item in items) / len(items)
    rate = f"{1e3 * spent:.1f} ms, {1 / spent:.0f} sweeps/s"
    print(f"pasting {num / len(items):.1f} objects into {points:,.0f} points: {rate}")


if __name__ == "__main__":
    main()
