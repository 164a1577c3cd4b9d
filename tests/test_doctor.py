"""The doctor names what is there, what is missing and what to do."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from equilidar import doctor

ROOT = Path(__file__).resolve().parents[1]


def test_finds_required_packages() -> None:
    findings = {f.name: f for f in doctor.examine()}
    assert findings["torch"].status == "ok" and findings["torch"].required
    assert findings["reference"].status == "ok"
    assert doctor.is_healthy(list(findings.values()))


@pytest.mark.parametrize(
    ("error", "status"),
    [(ModuleNotFoundError("no", name="numba"), "missing"), (OSError("libcudart.so.13: cannot open"), "broken")],
)
def test_missing_and_broken_package(monkeypatch: pytest.MonkeyPatch, error: Exception, status: str) -> None:
    real = importlib.import_module

    def fails(name: str) -> object:
        if name == "numba":
            raise error
        return real(name)

    monkeypatch.setattr(doctor.importlib, "import_module", fails)
    findings = doctor.examine()
    numba = next(f for f in findings if f.name == "numba")
    assert numba.status == status
    assert "pip install" in numba.remedy
    assert not doctor.is_healthy(findings)
    assert "numba" in doctor.format_table(findings)


def test_dataset_folder_that_is_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "tools/doctor.py", f"kitti_object={tmp_path / 'nowhere'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere does not exist" in done.stdout
    assert "Traceback" not in done.stderr
