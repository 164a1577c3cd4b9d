"""What is installed and usable on this machine, and what to do about the rest.

Every check catches what it looks for: a doctor that dies of the illness helps nobody. Nothing here is imported
before it is looked at, so that a broken package shows as one line of the table.
"""

import importlib
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "missing", "broken", "untested"]

REQUIRED = (
    "torch", "numpy", "pytorch_lightning", "hydra", "jaxtyping", "safetensors", "numba", "scipy", "matplotlib",
)  # fmt: skip
# Import name -> (what it is for, extra that brings it).
OPTIONAL = {
    "spconv": ("sparse convolution on CUDA; a test oracle on CPU", "spconv-cpu"),
    "kiss_icp": ("ego motion where a log has no poses", "ego"),
    "rosbags": ("ROS bags and MCAP files", "logs"),
    "google_crc32c": ("checksums of Waymo records", "logs"),
    "plotly": ("curves in report pages", "report"),
    "tensorboard": ("TensorBoard logs", "report"),
    "wandb": ("logger=wandb", "wandb"),
    "submitit": ("Slurm job arrays", "slurm"),
}
DISTRIBUTIONS = {"hydra": "hydra-core", "pytorch_lightning": "pytorch-lightning", "kiss_icp": "kiss-icp"}


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table.

    Attributes:
        group: heading that the row stands under.
        name: what was looked at.
        status: "ok", "missing", "broken", or "untested" (here, but never tried on this kind of machine).
        detail: what was found.
        remedy: what to do; empty where nothing needs doing.
        required: whether the project does not run without it.
    """

    group: str
    name: str
    status: Status
    detail: str
    remedy: str = ""
    required: bool = False


def examine(datasets: dict[str, Path] | None = None) -> list[Finding]:
    """Look at the machine, packages, engines, kernels and the given dataset folders."""
    findings = [*_machine(), *_packages(), *_engines(), *_kernels(), *_never_tested()]
    findings += [_dataset(name, root) for name, root in (datasets or {}).items()]
    return findings


def is_healthy(findings: list[Finding]) -> bool:
    """Tell whether everything required is there and nothing asked for is broken."""
    return not any(f.status == "broken" or (f.required and f.status != "ok") for f in findings)


def _machine() -> Iterator[Finding]:
    version = platform.python_version()
    enough = sys.version_info >= (3, 11)
    yield Finding(
        "machine", "python", "ok" if enough else "broken", version,
        "" if enough else "install Python 3.11 or newer", required=True,
    )  # fmt: skip
    system = f"{platform.system()} {platform.machine()}"
    if system == "Linux x86_64":
        yield Finding("machine", "platform", "ok", system)
    else:
        yield Finding("machine", "platform", "untested", system, "run `make test` and tell us what it says")


def _packages() -> Iterator[Finding]:
    for name in REQUIRED:
        yield _package(name, "pip install -c constraints.txt -e .", required=True)
    for name, (purpose, extra) in OPTIONAL.items():
        finding = _package(name, f"{purpose}: pip install -c constraints.txt -e '.[{extra}]'", required=False)
        yield finding


def _package(name: str, remedy: str, *, required: bool) -> Finding:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return Finding("packages", name, "missing", "not installed", remedy, required)
        return Finding("packages", name, "broken", f"needs {error.name}", f"pip install {error.name}", required)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding("packages", name, "broken", first, f"reinstall it: {remedy}", required)
    try:
        version = importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        version = "unknown version"
    return Finding("packages", name, "ok", version, required=required)


def _engines() -> Iterator[Finding]:
    try:
        import torch
    except Exception:
        return
    yield Finding("engines", "reference", "ok", "PyTorch gather-GEMM-scatter, any device")
    has_spconv = importlib.util.find_spec("spconv") is not None
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "no GPU, or no driver, is visible" if built else "this torch is a CPU build"
        advice = "check nvidia-smi" if shutil.which("nvidia-smi") else "nothing to do on a CPU machine"
        yield Finding("engines", "cuda", "missing", why, advice)
        yield Finding(
            "engines", "spconv", "untested" if has_spconv else "missing",
            "needs CUDA; on a CPU it gives wrong rows with more than one thread",
            "the reference engine is used",
        )  # fmt: skip
        return
    device = torch.cuda.get_device_name(0)
    yield Finding("engines", "cuda", "untested", f"{device}, CUDA {torch.version.cuda}", "run `make gpu-check`")
    if has_spconv:
        yield Finding("engines", "spconv", "untested", "used by engine=auto", "run `make gpu-check`")
    else:
        yield Finding("engines", "spconv", "missing", "", "pip install spconv-cu126==2.3.8 (runs on CUDA 12.x drivers)")


def _kernels() -> Iterator[Finding]:
    yield _compiled_kernels()
    nvcc = shutil.which("nvcc")
    if nvcc:
        done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, timeout=30, check=False)
        lines = [line for line in done.stdout.splitlines() if "release" in line]
        yield Finding("kernels", "nvcc", "ok", lines[0].strip() if lines else "found")
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    yield Finding(
        "kernels", "C++ compiler", "ok" if compiler else "missing", compiler or "",
        "" if compiler else "needed only to build kernels: install g++",
    )  # fmt: skip


def _compiled_kernels() -> Finding:
    name = "equilidar_kernels"
    try:
        from equilidar.ops import _extension
    except Exception as error:
        return Finding("kernels", name, "broken", f"equilidar.ops cannot be imported: {error}", "reinstall torch")
    status = _extension.load()
    if status.error is not None:
        return Finding("kernels", name, "broken", status.error, "make kernels")
    if status.version is None:
        slower = "reference ops in PyTorch are used (slower, same results)"
        return Finding("kernels", name, "missing", slower, "make kernels")
    import equilidar_kernels  # pyright: ignore[reportMissingImports]

    return Finding("kernels", name, "ok", f"built with {equilidar_kernels.build_info()}")


def _never_tested() -> Iterator[Finding]:
    """List what the project's own tests have never reached, on any machine."""
    report = "run it and tell us what you see"
    yield Finding(
        "never tested anywhere", "training on a GPU", "untested", "written for it, not yet run", "make gpu-check"
    )
    yield Finding("never tested anywhere", "several GPUs (NCCL)", "untested", "gloo on CPU is tested", report)
    yield Finding("never tested anywhere", "macOS, Windows, ARM", "untested", "Linux x86_64 is tested", report)


def _dataset(name: str, root: Path) -> Finding:
    if not root.exists():
        return Finding("datasets", name, "broken", f"{root} does not exist", "check the path")
    try:
        dataset: Any = _open_dataset(name, root)
        return Finding("datasets", name, "ok", f"{len(dataset)} samples, first one read: {dataset[0].key}")
    except (ValueError, OSError) as error:
        return Finding("datasets", name, "broken", str(error).splitlines()[0], "see configs/dataset/" + name + ".yaml")


def _open_dataset(name: str, root: Path) -> Any:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from equilidar.training.cli import CONFIGS

    path = CONFIGS / "dataset" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ValueError(f"dataset {name!r} is not one of: {known}")
    config = OmegaConf.merge(OmegaConf.load(path), {"root": str(root)})
    return instantiate(config, _convert_="all")


def format_table(findings: list[Finding]) -> str:
    """Return the findings as aligned text, grouped."""
    width = max(len(f.name) for f in findings)
    lines: list[str] = []
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            lines += ["", group]
        remedy = f"  -> {finding.remedy}" if finding.remedy else ""
        lines.append(f"  {finding.status:<9}{finding.name:<{width}}  {finding.detail}{remedy}")
    return "\n".join(lines[1:])
