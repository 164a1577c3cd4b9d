"""Collect what an offline GPU machine lacks into one archive: python benchmarks/bundle.py

Such a machine (Python 3.12, torch with CUDA, NumPy, pytest, pytorch-lightning, numba, nvcc) has no package index. The
archive holds unpacked wheels, recompressed with xz: spconv's main library shrinks from 71 to 26 MB. `gpu_check.py`
unpacks it and puts it on the path.
"""

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

_MAX_BYTES = 64 << 20
_PURE_SOURCE = "antlr4-python3-runtime"  # published as source only; pure Python
_PINNED = [
    *("hydra-core", "omegaconf", "torchdata", "jaxtyping", "wadler_lindig", "beartype", "safetensors"),
    *("hypothesis", "sortedcontainers", "pytest-timeout", "shapely"),
    *("pccm", "ccimport", "pybind11", "ninja", "fire", "termcolor", "lark", "portalocker"),  # of spconv
]
# The last line of spconv with CUDA; runs on drivers of CUDA 12.6 and later. cumm 0.8 changed its interface.
_SPCONV = ("spconv-cu126==2.3.8", "cumm-cu126==0.7.11")


def constraints(path: Path) -> dict[str, str]:
    """Return "name==version" by normalised name, from the constraints file."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pins = [line for line in lines if line and not line.startswith("#")]
    return {_normalised(pin.partition("==")[0]): pin for pin in pins}


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def download(requirements: list[str], folder: Path, python: str) -> None:
    """Fetch wheels of Linux x86-64 for a version of Python, without what they depend on."""
    platforms = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
    options = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for platform in platforms:
        options += ["--platform", platform]
    _pip("download", *options, "--dest", str(folder), *requirements)


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", arguments[0], "--quiet", *arguments[1:]], check=True)


def main() -> int:
    """Write the archive; exit code 1 if it is too large to be carried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/bundle.tar.xz"))
    parser.add_argument("--constraints", type=Path, default=Path("constraints.txt"))
    parser.add_argument("--python", default="3.12", help="of the offline machine (default: %(default)s)")
    arguments = parser.parse_args()
    pins = constraints(arguments.constraints)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wheels, site = Path(scratch) / "wheels", Path(scratch) / "site"
        download([*_SPCONV, *(pins[_normalised(name)] for name in _PINNED)], wheels, arguments.python)
        _pip("wheel", "--no-deps", "--wheel-dir", str(wheels), pins[_PURE_SOURCE])
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        with tarfile.open(arguments.output, "w:xz", preset=6) as archive:
            archive.add(site, arcname=".")
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size / 2**20:.1f} MiB")
    if size > _MAX_BYTES:
        print(f"larger than {_MAX_BYTES >> 20} MiB: leave packages out of _PINNED in {__file__}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
