"""Parameters `second_case` and `centerpoint_case`: folders of OpenPCDet results for these detectors.

Of CenterPoint there are two more, written by the plain implementation in this folder.
"""

import os
from pathlib import Path

import pytest

ORACLES = Path(os.environ.get("EQUILIDAR_ORACLES", Path(__file__).resolve().parents[3] / "shared" / "oracles"))
WRITTEN = ("written_whole", "written_samples")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "second_case" in metafunc.fixturenames:
        folders = sorted(path for path in (ORACLES / "openpcdet").glob("second_*") if path.is_dir())
        metafunc.parametrize("second_case", folders, ids=lambda path: path.name, scope="session")
    if "centerpoint_case" in metafunc.fixturenames:
        folders = sorted(path for path in (ORACLES / "openpcdet").glob("centerpoint_*") if path.is_dir())
        cases = [*folders, *WRITTEN, *([] if ORACLES.is_dir() else ["none"])]
        ids = [case if isinstance(case, str) else case.name for case in cases]
        metafunc.parametrize("centerpoint_case", cases, ids=ids, indirect=True, scope="session")


@pytest.fixture(scope="session")
def centerpoint_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case of CenterPoint with weights and whole head maps, by the plain implementation."""
    from .centerpoint_files import write_case

    return write_case(tmp_path_factory.mktemp("written") / "centerpoint_written")


@pytest.fixture(scope="session")
def centerpoint_samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another, with samples of the head maps; of weights at which no ReLU hangs on rounding."""
    from .centerpoint_files import write_case

    return write_case(tmp_path_factory.mktemp("written") / "centerpoint_samples", whole=False, seed=2)


@pytest.fixture(scope="session")
def centerpoint_case(request: pytest.FixtureRequest) -> Path:
    """A folder of results for CenterPoint."""
    if request.param == "none":
        pytest.skip(f"no reference results at {ORACLES}: set EQUILIDAR_ORACLES")
    if request.param == "written_whole":
        return request.getfixturevalue("centerpoint_reference")
    if request.param == "written_samples":
        return request.getfixturevalue("centerpoint_samples")
    return request.param
