"""Runs that differ in their seeds alone belong together: what their figures are on average, and how far they spread."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equilidar.report.run_summary import RunSummary

MODERATE = 1
FIRST_ROWS = ("scratch", "pretrained", "frozen")


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the runs that it was measured with.

    Attributes:
        values: one for each run.
        cliff: how far it moves where the same detections get slightly other scores: the largest of the runs, None where
            it was not measured.
    """

    values: tuple[float, ...]
    cliff: float | None = None

    @property
    def mean(self) -> float:
        """Of the values; of a single one it is that one, and may not be shown as a mean."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Sample standard deviation, None where there is one value."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def text(self) -> str:
        """Mean and standard deviation, or the one value by itself."""
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"

    @property
    def cliff_text(self) -> str:
        return "cliff not measured" if self.cliff is None else f"cliff {self.cliff:.2f}"

    @property
    def range_text(self) -> str:
        """Lowest to highest, empty where there is one value."""
        return f"{min(self.values):.2f} to {max(self.values):.2f}" if len(self.values) > 1 else ""


@dataclass(frozen=True, slots=True)
class Group:
    """Evaluated runs of one experiment, label fraction and start.

    Attributes:
        experiment: its name.
        fraction: of the labels, None where runs do not say.
        start: label of the runs: scratch, pretrained ...
        runs: at least one.
    """

    experiment: str
    fraction: float | None
    start: str
    runs: tuple[RunSummary, ...]

    @property
    def num_seeds(self) -> int:
        return len({run.seed for run in self.runs})

    @property
    def num_subsets(self) -> int | None:
        """Different label subsets; None where a run does not say which one it had."""
        hashes = {run.subset_hash for run in self.runs}
        return None if None in hashes else len(hashes)

    @property
    def runs_text(self) -> str:
        """Say how many runs, seeds and label subsets a row stands on; one run is called one run."""
        seeds = f"{self.num_seeds} seed{'s' if self.num_seeds > 1 else ''}"
        subsets = (
            "" if self.num_subsets is None else f", {self.num_subsets} subset{'s' if self.num_subsets > 1 else ''}"
        )
        return f"one run{_seed_of(self.runs[0])}" if len(self.runs) == 1 else f"{len(self.runs)} runs, {seeds}{subsets}"

    def spread(self, name: str, metric: str, key: str = "AP_R40", level: int = MODERATE) -> Spread | None:
        """Return a figure over the runs, None where not all of them have it."""
        return spread(self.runs, name, metric, key, level)


def groups_of(runs: Sequence[RunSummary]) -> list[Group]:
    """Return evaluated runs by experiment, fraction and start: scratch, pretrained, frozen, then others as given."""
    members: dict[tuple[str, float | None, str], list[RunSummary]] = {}
    for run in runs:
        if run.figures is not None:
            members.setdefault((run.experiment, run.fraction, run.label), []).append(run)
    starts = list(dict.fromkeys(run.label for run in runs))

    def order(key: tuple[str, float | None, str]) -> tuple[str, float, int]:
        experiment, fraction, start = key
        known = FIRST_ROWS.index(start) if start in FIRST_ROWS else len(FIRST_ROWS) + starts.index(start)
        return experiment, -1.0 if fraction is None else fraction, known

    return [Group(*key, tuple(members[key])) for key in sorted(members, key=order)]


def spread(
    runs: Sequence[RunSummary], name: str, metric: str, key: str = "AP_R40", level: int = MODERATE
) -> Spread | None:
    """Return a figure of runs that differ in their seeds; None where one of them does not have it.

    The official KITTI tool gives none for a class of which nothing was found: that run counts as 0.
    """
    values, cliffs = [], []
    for run in runs:
        metrics = (run.figures or {}).get(name, {})
        entry = metrics.get(metric)
        if isinstance(entry, dict) and key in entry:
            values.append(float(entry[key][level]))
        elif metric in metrics and entry is None and is_of_boxes(metric):
            values.append(0.0)
        else:
            return None
        sizes = (run.jitter or {}).get(name, {}).get(metric, {}).get(key)
        if sizes is not None:
            cliffs.append(float(sizes[level]))
    return Spread(tuple(values), max(cliffs) if len(cliffs) == len(values) else None) if values else None


def is_of_boxes(metric: str) -> bool:
    """Tell whether a metric has a figure wherever anything of a class was found (aos needs angles, bbox an image)."""
    return metric.partition("@")[0] in ("3d", "bev")


def percent(fraction: float | None) -> str:
    """Return "5 % of the labels"."""
    return "labels not stated" if fraction is None else f"{100 * fraction:g} % of the labels"


def _seed_of(run: RunSummary) -> str:
    seeds = [f"seed {run.seed}"] if run.seed is not None else []
    seeds += [f"label seed {run.label_seed}"] if run.label_seed is not None else []
    return f" ({', '.join(seeds)})" if seeds else ""
