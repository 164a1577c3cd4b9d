"""One parameter `second_case` for each folder of OpenPCDet results for SECOND."""

import os
from pathlib import Path

import pytest

ORACLES = Path(os.environ.get("EQUILIDAR_ORACLES", Path(__file__).resolve().parents[3] / "shared" / "oracles"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "second_case" in metafunc.fixturenames:
        folders = sorted(path for path in (ORACLES / "openpcdet").glob("second_*") if path.is_dir())
        metafunc.parametrize("second_case", folders, ids=lambda path: path.name, scope="session")
