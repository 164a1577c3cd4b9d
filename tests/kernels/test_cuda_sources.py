"""Every CUDA source compiles by nvcc alone, for the GPUs that clusters have, and knows nothing of PyTorch."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "cuda_ext" / "csrc"
CUDA_SOURCES = sorted(SOURCES.glob("*.cu"))
ARCHITECTURES = ("sm_80", "sm_90")
_PYTORCH = re.compile(r'#include\s*[<"](torch|ATen|c10|pybind11)/|#include\s*[<"]Python\.h|"bind/')


def included(path: Path, seen: set[Path]) -> set[Path]:
    """Return a source and what it includes of ours, directly or not."""
    if path in seen or not path.is_file():
        return seen
    seen.add(path)
    for name in re.findall(r'#include\s*"([^"]+)"', path.read_text()):
        included(SOURCES / name, seen)
    return seen


def test_there_are_cuda_sources():
    assert CUDA_SOURCES


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.c*")), ids=lambda path: path.name)
def test_kernels_include_nothing_of_pytorch(source):
    for path in included(source, set()):
        assert not _PYTORCH.search(path.read_text()), f"{source.name} reaches PyTorch by {path.name}"


# What CUDA kernels alone build on: no ops.
CUDA_ONLY = {"device_sort"}


@pytest.mark.parametrize("source", CUDA_SOURCES, ids=lambda path: path.name)
def test_what_has_a_cuda_kernel_has_a_cpu_kernel_of_the_same_header(source):
    assert source.with_suffix(".h").is_file()
    assert source.with_suffix(".cpp").is_file() or source.stem in CUDA_ONLY


@pytest.mark.slow
def test_cuda_sources_compile(tmp_path):
    nvcc = os.environ.get("NVCC") or shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on the PATH (set NVCC)")

    def compiled(job: tuple[Path, str]) -> str:
        source, architecture = job
        command = [nvcc, f"-arch={architecture}", "-std=c++20", "--fmad=false", "-Werror=all-warnings", "-c"]
        command += ["-I", str(SOURCES), str(source), "-o", str(tmp_path / f"{source.stem}.{architecture}.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return f"{source.name} for {architecture}:\n{done.stderr}" if done.returncode else ""

    jobs = [(source, architecture) for source in CUDA_SOURCES for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(2) as pool:
        failed = [text for text in pool.map(compiled, jobs) if text]
    assert not failed, "\n".join(failed)
