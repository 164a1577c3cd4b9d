"""Simulated sweeps that fixtures of real formats are made of; scenes are built once for all of them."""

import functools
from typing import Any

from equilidar.data.simulator.populate import SceneOptions, make_scene
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.sensor import Sensor, make_sensor
from equilidar.data.simulator.sweep import SimulatedSweep, simulate_sweep

SMALL = {"name": "hdl32e", "azimuth_steps": 60, "beam_stride": 4}


@functools.cache
def scene(sequence: int) -> Scene:
    return make_scene(5, sequence, SceneOptions())


def simulate(sequence: int, frame: int, rate: float, sensor: dict[str, Any] | None = None) -> SimulatedSweep:
    """Return frame `frame` of the scene, `rate` frames a second."""
    return simulate_sweep(scene(sequence), sensor_of(rate, sensor), frame)


def sensor_of(rate: float, sensor: dict[str, Any] | None = None) -> Sensor:
    return make_sensor(**(sensor or SMALL), rate=rate)
