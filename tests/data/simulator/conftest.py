"""Scenes that several tests look at."""

from dataclasses import replace

import pytest

from equilidar.data.simulator import Sensor, make_scene, make_sensor
from equilidar.data.simulator.primitives import DEPTH
from equilidar.data.simulator.scene import Scene


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    return [make_scene(11, sequence) for sequence in range(3)]


@pytest.fixture(scope="session")
def solid_scene(scenes: list[Scene]) -> Scene:
    """A scene where foliage, meshes and panes are solid, so that what a ray meets is no matter of chance."""
    parts = scenes[1].parts.copy()
    parts[:, DEPTH] = 0.0
    return replace(scenes[1], parts=parts)


@pytest.fixture(scope="session")
def exact() -> Sensor:
    """A cheap sensor without noise, losses and shutter."""
    return make_sensor("hdl64e", azimuth_steps=360).noise_free()
