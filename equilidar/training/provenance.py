"""What a run was made of: config, code, packages, data, machine."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import equilidar
from equilidar.training.json_file import write_json
from equilidar.training.run_directory import RunDirectory

_PACKAGES = (
    "equilidar", "torch", "numpy", "pytorch-lightning", "torchdata", "hydra-core", "omegaconf", "safetensors",
    "numba", "scipy", "spconv", "kiss-icp",
)  # fmt: skip


def record(run: RunDirectory, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Write provenance.json (and uncommitted.diff, if there is any) into the run directory and return it.

    A run that is resumed keeps one entry per attempt under "attempts": code and machine may have changed in between.

    Args:
        run: an entered run directory.
        data: what the datasets say of themselves (`provenance()`), hashes of splits among it, by role.
        more: plain values, such as whether the flow came from labels.
    """
    commit, diff = _git("rev-parse", "HEAD"), _git("diff", "HEAD")
    attempt = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "resumed": run.resume_from is not None,
        "git_commit": commit,
        "git_is_clean": None if diff is None else not diff,
        "packages": packages(),
        "hardware": hardware(),
    }
    path = run.path / "provenance.json"
    identity = {**vars(run.identity), "overrides": list(run.identity.overrides)}
    value = {"identity": identity, "config": run.resolved, "data": data, **more, "attempts": [attempt]}
    if run.is_main:
        value["attempts"] = [*_earlier_attempts(path), attempt]
        write_json(path, value)
        if diff:
            (run.path / "uncommitted.diff").write_text(diff)
    return value


def packages() -> dict[str, str]:
    """Return the versions of the packages that results may depend on, those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return what the machine is."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "cuda": torch.version.cuda,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git(*arguments: str) -> str | None:
    """Return git's answer about this checkout, None where there is none (an installed package)."""
    folder = Path(equilidar.__file__).resolve().parents[1]
    try:
        # The checkout's own: an installed package inside another project's checkout has no commit.
        if not (folder / ".git").exists():
            return None
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _earlier_attempts(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["attempts"] if path.is_file() else []
