"""Shared fixtures: where samples and oracles lie, shape checking at run time, one thread."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Shapes in signatures are checked in every test; must precede the first import of the package.
install_import_hook("equilidar", "beartype.beartype")

import torch  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared"
SAMPLES = Path(os.environ.get("EQUILIDAR_SAMPLES", SHARED / "data"))
ORACLES = Path(os.environ.get("EQUILIDAR_ORACLES", SHARED / "oracles"))


def pytest_configure(config: pytest.Config) -> None:
    # spconv's CPU convolutions, an oracle here, are wrong with more than one thread.
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the slow tests first: with several processes, one of them at the end would keep all others waiting."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep tests, and the commands that they start, out of the user's cache folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real recordings."""
    if not SAMPLES.is_dir():
        pytest.skip(f"no recordings at {SAMPLES}: set EQUILIDAR_SAMPLES")
    return SAMPLES


@pytest.fixture(scope="session")
def oracles() -> Path:
    """Folder of reference results."""
    if not ORACLES.is_dir():
        pytest.skip(f"no reference results at {ORACLES}: set EQUILIDAR_ORACLES")
    return ORACLES
