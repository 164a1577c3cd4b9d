"""Build the CPU kernels with sanitizers and run the tests of the ops on them: python cuda_ext/sanitize.py [pytest ...]

Any access out of bounds, use after free, overflow or other undefined behaviour in the kernels ends it with a report.
Values and gradients are compared with the references; what tests PyTorch's own machinery is left out (see
tests/kernels/sanitized.py). Built into cuda_ext/build-sanitize, so that the kernels in use stay as they are.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = HERE / "build-sanitize"
FLAGS = "-fsanitize=address,undefined"


def runtimes() -> list[str] | None:
    """Return the sanitizers' libraries, None if the compiler cannot link them or they are not shared libraries."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        return None
    command = [compiler, FLAGS, "-x", "c++", "-", "-o", os.devnull]
    if subprocess.run(command, input="int main() {}", capture_output=True, text=True, check=False).returncode:
        return None
    found = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    # A name comes back as it is where the compiler (clang) has no such file.
    return found if all(Path(path).is_absolute() for path in found) else None


def build() -> Path:
    """Build the package, or what changed of it, and return the folder to import it from."""
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(BUILD), "--build-lib", str(BUILD / "lib")]
    environment = {**os.environ, "EQUILIDAR_SANITIZE": "1", "EQUILIDAR_CUDA": "0"}
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the build with {FLAGS} failed:\n{done.stdout[-6000:]}\n{done.stderr[-4000:]}")
    return BUILD / "lib"


def main() -> int:
    """Build, then run pytest with the arguments given."""
    libraries = runtimes()
    if libraries is None:
        sys.exit(f"the compiler cannot build with {FLAGS} (g++ can, with its package libasan)")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(build()), str(ROOT)]),
        "LD_PRELOAD": " ".join(libraries),
        # Python and PyTorch keep what they allocated until the end.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",
    }
    arguments = sys.argv[1:] or ["tests/ops", "-m", "not slow and not gpu"]
    # Capturing by pytest would swallow the report of what ends the process.
    command = [sys.executable, "-m", "pytest", "-q", "--capture=sys", "-p", "tests.kernels.sanitized", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
