"""How fast the simulator is: python benchmarks/simulator.py [--sensor hdl64e] [--columns 1024] [--shutter].

One process, one thread. Times are processor time of this process, so that other load counts little.
"""

import argparse
import time

import numpy as np

from equilidar.data.simulator import make_scene, make_sensor, simulate_sweep


def main() -> None:
    """Print scenes/s, sweeps/s and rays/s."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sensor", default="hdl64e")
    parser.add_argument("--columns", type=int, default=1024)
    parser.add_argument("--shutter", action="store_true")
    parser.add_argument("--sweeps", type=int, default=60)
    arguments = parser.parse_args()
    sensor = make_sensor(arguments.sensor, azimuth_steps=arguments.columns, rolling_shutter=arguments.shutter)
    simulate_sweep(make_scene(0, 0), sensor, 0)  # compiles
    begin = time.process_time()
    scenes = [make_scene(1, sequence) for sequence in range(4)]
    scene_time = (time.process_time() - begin) / len(scenes)
    spent, objects, parts, points = [], [], [], []
    for number in range(arguments.sweeps):
        scene = scenes[number % len(scenes)]
        begin = time.process_time()
        sweep = simulate_sweep(scene, sensor, 3 * (number // len(scenes)))
        spent.append(time.process_time() - begin)
        objects.append(len(np.unique(sweep.instance)) - 1)
        parts.append(len(np.unique(sweep.part)) - 1)
        points.append(len(sweep.xyz))
    rays = sensor.beams * sensor.azimuth_steps
    per_sweep = float(np.mean(spent))
    print(f"{sensor.name}, {sensor.beams} x {sensor.azimuth_steps} rays, rolling shutter: {sensor.rolling_shutter}")
    print(f"seen per sweep: {np.mean(objects):.0f} objects, {np.mean(parts):.0f} parts, {np.mean(points):.0f} points")
    print(f"a scene is built in {scene_time * 1e3:.0f} ms")
    print(f"{1 / per_sweep:.1f} sweeps/s, {rays / per_sweep / 1e6:.2f} million rays/s (fastest {1 / min(spent):.1f})")


if __name__ == "__main__":
    main()
