"""Builds the kernels: C++ for the CPU always, CUDA where nvcc and a CUDA torch of the same major version are there.

Environment:
    EQUILIDAR_CUDA: "0" leaves CUDA out, "1" makes its absence an error, unset decides by what is there.
    TORCH_CUDA_ARCH_LIST: architectures; unset on a machine without GPU means 8.0, 9.0 and PTX of 9.0 for later ones.
    EQUILIDAR_SANITIZE: "1" instruments the CPU kernels (-fsanitize=address,undefined) for `make kernels-sanitize`.
    MAX_JOBS: parallel compilations.
"""

import os
import subprocess
import sys
from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension

SOURCES = Path("csrc")


def nvcc_major() -> int | None:
    """Return the major version of the CUDA toolkit, None without one."""
    if CUDA_HOME is None:
        return None
    try:
        text = subprocess.run([f"{CUDA_HOME}/bin/nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return int(text.partition("release ")[2].partition(".")[0])


def reason_without_cuda() -> str | None:
    """Return why CUDA kernels are not built, None if they are."""
    if os.environ.get("EQUILIDAR_CUDA") == "0":
        return "EQUILIDAR_CUDA=0"
    if torch.version.cuda is None:
        return "this torch is a CPU build"
    toolkit = nvcc_major()
    if toolkit is None:
        return "no nvcc (set CUDA_HOME)"
    if toolkit != int(torch.version.cuda.partition(".")[0]):
        return f"nvcc is of CUDA {toolkit} and torch of CUDA {torch.version.cuda}; both must have one major version"
    return None


def extension() -> CppExtension:
    """Return the one extension with all kernels."""
    sources = sorted(str(path) for path in [*SOURCES.glob("*.cpp"), *SOURCES.glob("bind/*.cpp")])
    # No -ffast-math and no contraction to FMA beyond what the code writes: results are the reference's, bit for bit
    # where a comparison decides.
    flags = ["-O3", "-std=c++20", "-fopenmp", "-ffp-contract=off", "-g0", "-Wall", "-Wno-unknown-pragmas"]
    link = ["-fopenmp"]
    macros = [("EQUILIDAR_TORCH", f'"{torch.__version__}"')]
    if os.environ.get("EQUILIDAR_SANITIZE") == "1":
        flags += ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        link += ["-fsanitize=address,undefined"]
    include = [str(SOURCES.resolve())]
    reason = reason_without_cuda()
    if reason is not None:
        if os.environ.get("EQUILIDAR_CUDA") == "1":
            sys.exit(f"EQUILIDAR_CUDA=1, but CUDA kernels cannot be built: {reason}")
        print(f"equilidar-kernels: CPU kernels only: {reason}")
        return CppExtension(
            "equilidar_kernels._C",
            sources,
            include_dirs=include,
            define_macros=macros,
            extra_compile_args={"cxx": flags},
            extra_link_args=link,
        )
    if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
        os.environ["TORCH_CUDA_ARCH_LIST"] = "8.0;9.0+PTX"
    sources += sorted(str(path) for path in SOURCES.glob("*.cu"))
    return CUDAExtension(
        "equilidar_kernels._C",
        sources,
        include_dirs=include,
        define_macros=[*macros, ("EQUILIDAR_WITH_CUDA", None)],
        extra_compile_args={"cxx": flags, "nvcc": ["-O3", "-std=c++20", "--fmad=false"]},
        extra_link_args=link,
    )


setup(ext_modules=[extension()], cmdclass={"build_ext": BuildExtension.with_options(use_ninja=True)})
