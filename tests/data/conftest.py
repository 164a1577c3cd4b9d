"""Fixtures that more than one file of tests reads."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def waymo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `waymo_simulated` lies; tests that change it take `waymo_copy`."""
    return tmp_path_factory.mktemp("waymo")


@pytest.fixture(scope="session")
def waymo_simulated(waymo_root: Path) -> list:
    """Two segments in Waymo's format, and the sweeps that they are made of."""
    from tests.data.fake_waymo import write_segments

    return write_segments(waymo_root)


@pytest.fixture
def waymo_copy(waymo_root: Path, waymo_simulated: list, tmp_path: Path) -> Path:
    shutil.copytree(waymo_root / "training", tmp_path / "training")
    return tmp_path
