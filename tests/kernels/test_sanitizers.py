"""The kernels under the address and undefined-behaviour sanitizers."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "cuda_ext" / "sanitize.py"
# Large inputs tell no more here, and compilation nothing of our memory.
LEFT_OUT = "oracle or sample or compile or autocast"


def has_sanitizers() -> bool:
    spec = importlib.util.spec_from_file_location("sanitize", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.runtimes() is not None


@pytest.mark.slow
def test_kernels_are_clean_under_sanitizers():
    if not has_sanitizers():
        pytest.skip("the C++ compiler cannot build with -fsanitize=address,undefined")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, str(SCRIPT), "tests/ops", "-k", f"not ({LEFT_OUT})", "-m", "not slow and not gpu"]
    command += ["--ignore", "tests/ops/test_registration.py", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    assert "ERROR: AddressSanitizer" not in done.stderr and "runtime error:" not in done.stderr
