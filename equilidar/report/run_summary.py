"""What a finished run directory tells: figures, logged curves, pictures, provenance."""

import csv
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

_STEP_COLUMNS = ("step", "epoch")


@dataclass(frozen=True, slots=True)
class Series:
    """One logged quantity.

    Attributes:
        steps: (N,) training steps, rising.
        values: (N,) finite values.
    """

    steps: Float64[np.ndarray, " N"]
    values: Float64[np.ndarray, " N"]

    @property
    def last(self) -> float:
        return float(self.values[-1])


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A finished run.

    Attributes:
        folder: the run directory.
        label: the row of the result table that it belongs to; runs with one label differ in their seed alone.
        command: that made it: pretrain, finetune ...
        seed: of the run, None where the run does not say.
        figures: {class: {metric: {"AP_R40": [easy, moderate, hard], ...}, "num_ground_truth": [...]}}; None for a run
            that was not evaluated (pretraining).
        series: logged quantities by column name.
        provenance: what the run recorded of its origin.
        pictures: PNG files.
        jitter: {class: {metric: {"AP_R40": [easy, moderate, hard], "AP_R11": [...]}}}, how far figures spread where the
            same detections get slightly other scores; None where that was not measured.
    """

    folder: Path
    label: str
    command: str
    seed: int | None
    figures: dict[str, dict[str, Any]] | None
    series: dict[str, Series]
    provenance: dict[str, Any]
    pictures: tuple[Path, ...] = field(default=())
    jitter: dict[str, dict[str, Any]] | None = None

    @classmethod
    def read(cls, folder: str | Path, label: str | None = None) -> "RunSummary":
        """Read a run directory: metrics.csv and provenance.json, and where there are any metrics.json (figures),
        score_jitter.json and pictures/*.png.

        Args:
            folder: the run directory.
            label: row of the result table; by default the run's `init`, else what the run is called.

        Raises:
            FileNotFoundError: the folder or a file in it is missing.
            ValueError: the run has not finished, or a file in it is damaged.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"no run directory {folder}")
        if (folder / "run.json").is_file() and not (folder / "finished.json").is_file():
            raise ValueError(f"{folder} holds an unfinished run: give its command again, it will go on")
        provenance = _read_json(_needed(folder, "provenance.json"))
        return cls(
            folder,
            label or _label_of(provenance, folder),
            _command_of(provenance),
            _seed_of(provenance),
            _read_figures(folder),
            read_series(folder),
            provenance,
            tuple(sorted((folder / "pictures").glob("*.png"))),
            _read_jitter(folder),
        )

    @property
    def experiment(self) -> str:
        """Name of the experiment that was run."""
        return str(_at(self.provenance, "identity", "experiment") or "unknown")

    @property
    def fraction(self) -> float | None:
        """Part of the training sweeps that kept their labels, None where the run does not say."""
        value = self._labels("fraction")
        return float(value) if isinstance(value, int | float) else None

    @property
    def label_seed(self) -> int | None:
        """Seed of the label subset."""
        return self._labels("seed")

    @property
    def subset_hash(self) -> str | None:
        """Hash of the label subset."""
        return self._labels("hash")

    def _labels(self, name: str) -> Any:
        return _at(self.provenance, "data", "train", "labels", name)


def read_series(folder: Path) -> dict[str, Series]:
    """Read the logged quantities of a run; a resumed run has several files, where the later one holds for a step.

    Raises:
        FileNotFoundError: nothing was logged.
    """
    paths = sorted(folder.rglob("metrics.csv"), key=_by_number)
    if not paths:
        raise FileNotFoundError(f"no metrics.csv in {folder}: is this the directory of a finished run?")
    logged: dict[str, dict[float, float]] = {}
    for path in paths:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                step = _as_float(row.get("step"))
                for name, text in row.items():
                    value = _as_float(text)
                    if name not in _STEP_COLUMNS and not math.isnan(step) and math.isfinite(value):
                        logged.setdefault(name, {})[step] = value
    return {name: _series(values) for name, values in sorted(logged.items())}


def _series(values: dict[float, float]) -> Series:
    steps = sorted(values)
    return Series(np.array(steps), np.array([values[step] for step in steps]))


def _by_number(path: Path) -> list[str | int]:
    """Sort version_2 before version_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))]


def _as_float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _needed(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"no {name} in {folder}: is this the directory of a finished run?")
    return path


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold an object, got {type(value).__name__}")
    return value


def _read_figures(folder: Path) -> dict[str, dict[str, Any]] | None:
    path = folder / "metrics.json"
    if not path.is_file():
        return None
    figures = {name: metrics for name, metrics in _read_json(path).items() if isinstance(metrics, dict)}
    values = [value for metrics in figures.values() for value in metrics.values()]
    if any(isinstance(value, float) for value in values):  # of a benchmark without difficulties: NDS, APH, CDS
        return figures
    values = [value for value in values if isinstance(value, dict)]
    nothing_found = any("num_ground_truth" in metrics for metrics in figures.values())
    if not nothing_found and not any("AP_R40" in value for value in values):
        raise ValueError(
            f"{path} holds no average precision: expected {{class: {{metric: {{'AP_R40': [easy, moderate, hard]}}}}}}"
        )
    return figures


def _read_jitter(folder: Path) -> dict[str, dict[str, Any]] | None:
    path = folder / "score_jitter.json"
    if not path.is_file():
        return None
    spread = _read_json(path).get("spread")
    if not isinstance(spread, dict):
        raise ValueError(f"{path} must hold a spread: {{class: {{metric: {{'AP_R40': [...], 'AP_R11': [...]}}}}}}")
    return spread


def find_runs(folder: Path) -> list[Path]:
    """Return a run directory itself, or the finished runs somewhere below a folder of runs, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or no finished run in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no run directory {folder}")
    if (folder / "provenance.json").is_file() or (folder / "run.json").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.rglob("finished.json") if (path.parent / "provenance.json").is_file())
    if not found:
        raise FileNotFoundError(f"{folder} is no run directory and holds no finished run")
    return found


def _label_of(provenance: dict[str, Any], folder: Path) -> str:
    """Return scratch, pretrained or frozen where the config says so, else what the run is called."""
    init = provenance.get("init", _at(provenance, "config", "init"))
    if isinstance(init, str):
        return init
    if _command_of(provenance) == "pretrain":
        return "pretraining"
    return _at(provenance, "identity", "experiment") or folder.resolve().name


def _command_of(provenance: dict[str, Any]) -> str:
    return str(_at(provenance, "identity", "command") or "run")


def _seed_of(provenance: dict[str, Any]) -> int | None:
    seeds = (provenance.get("seed"), _at(provenance, "identity", "seed"), _at(provenance, "config", "seed"))
    return next((seed for seed in seeds if isinstance(seed, int)), None)


def setting(run: RunSummary, *path: str) -> Any:
    """Return an entry of the run's config, None where there is none."""
    return _at(run.provenance, "config", *path)


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
