"""A LiDAR simulator: streets full of people, vehicles and what looks like them, measured by a spinning sensor."""

from equilidar.data.simulator.dataset import SimulatedPairs, SimulatedSweeps
from equilidar.data.simulator.populate import SceneOptions, make_scene
from equilidar.data.simulator.sensor import Sensor, make_sensor
from equilidar.data.simulator.sweep import SimulatedSweep, simulate_sweep

__all__ = [
    "SceneOptions",
    "Sensor",
    "SimulatedPairs",
    "SimulatedSweep",
    "SimulatedSweeps",
    "make_scene",
    "make_sensor",
    "simulate_sweep",
]
