"""Differences between two starts on the same labels, with a bootstrap interval over label subsets.

Which sweeps carry labels moves a figure more than how training begins, so scratch and pretrained are compared pair by
pair: on one label subset each. The interval is the percentile bootstrap (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13) over pairs, seeded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equilidar.report.groups import MODERATE, Group, spread
from equilidar.report.run_summary import RunSummary

RESAMPLES, COVERAGE = 10_000, 0.95
ENOUGH = 5
"""Fewer label subsets carry no claim (CONTRIBUTING.md)."""


@dataclass(frozen=True, slots=True)
class Paired:
    """What another start gains over the first one.

    Attributes:
        before: the first, scratch.
        after: the other.
        seeds: label seeds of the pairs; run seeds where all runs have the same labels, or do not say which.
        num_subsets: different label subsets among the pairs; None where runs do not say.
        differences: after minus before, a value for each pair.
        interval: bootstrap interval of the mean; None with a single pair.
    """

    before: Group
    after: Group
    seeds: tuple[int | None, ...]
    num_subsets: int | None
    differences: tuple[float, ...]
    interval: tuple[float, float] | None

    @property
    def mean(self) -> float:
        return float(np.mean(self.differences))

    @property
    def text(self) -> str:
        """Return the difference in words, whichever is better."""
        who = f"{self.after.start} - {self.before.start}"
        if self.interval is None:
            return f"{who}: {self.mean:+.2f} (one pair, no interval: a difference of this kind can be chance)"
        low, high = self.interval
        interval = f"{COVERAGE:.0%} interval {low:+.2f} to {high:+.2f}"
        caution = f"; {self.caution}" if self.caution else ""
        return f"{who}: {self.mean:+.2f}, {interval}, {len(self.differences)} pairs{caution}"

    @property
    def caution(self) -> str:
        """Say that the pairs stand on few label subsets; empty where they are enough."""
        if self.num_subsets is None:
            return "which labels the runs had is not stated"
        if self.num_subsets == 1:
            return "all on one label subset"
        return f"fewer than {ENOUGH} label subsets carry no claim" if self.num_subsets < ENOUGH else ""


def paired_differences(
    groups: Sequence[Group], name: str, metric: str, key: str = "AP_R40", level: int = MODERATE
) -> list[Paired]:
    """Compare every other start with scratch (or, without one, the first) within each experiment and label fraction.

    Runs are paired by label subset, several runs on one subset being averaged first; where all of them have the same
    labels, by run seed.

    Args:
        groups: as `groups_of` returns them.
        name: class.
        metric: of the figure.
        key: AP_R40 or AP_R11.
        level: difficulty.

    Raises:
        ValueError: two runs say the same label seed but were trained on different subsets.
    """
    result: list[Paired] = []
    settings = dict.fromkeys((group.experiment, group.fraction) for group in groups)
    for setting in settings:
        own = [group for group in groups if (group.experiment, group.fraction) == setting]
        first = next((group for group in own if group.start == "scratch"), own[0])
        for other in (group for group in own if group is not first):
            _check_subsets([*first.runs, *other.runs])
            subsets = {run.subset_hash for run in (*first.runs, *other.runs)}
            before, after = (_by_seed(g, len(subsets) > 1, name, metric, key, level) for g in (first, other))
            if not before.keys() & after.keys() and len(subsets) == 1:
                before, after = (_by_seed(g, True, name, metric, key, level) for g in (first, other))
            seeds = [seed for seed in before if seed in after]
            differences = tuple(after[seed] - before[seed] for seed in seeds)
            if differences:
                num = None if None in subsets else len(seeds) if len(subsets) > 1 else 1
                result.append(Paired(first, other, tuple(seeds), num, differences, bootstrap_interval(differences)))
    return result


def bootstrap_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Return the percentile interval of the mean over resampled pairs, None for a single pair."""
    if len(differences) < 2:
        return None
    values = np.asarray(differences, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def _by_seed(group: Group, by_labels: bool, name: str, metric: str, key: str, level: int) -> dict[int | None, float]:
    """Return the mean figure of the runs of each label seed (the lowest of those that drew the same), or run seed."""
    first_seed: dict[str | None, int | None] = {}
    members: dict[int | None, list[RunSummary]] = {}
    for run in sorted(group.runs, key=lambda run: (run.label_seed or 0, run.seed or 0)):
        seed = first_seed.setdefault(run.subset_hash, run.label_seed) if by_labels else run.seed
        members.setdefault(seed, []).append(run)
    figures = {seed: spread(runs, name, metric, key, level) for seed, runs in members.items()}
    return {seed: figure.mean for seed, figure in figures.items() if figure}


def _check_subsets(runs: Sequence[RunSummary]) -> None:
    first: dict[int, RunSummary] = {}
    for run in runs:
        if run.label_seed is None:
            continue
        other = first.setdefault(run.label_seed, run)
        if other.subset_hash != run.subset_hash:
            raise ValueError(
                f"{other.folder} and {run.folder} both say label seed {run.label_seed}, but were trained on subsets "
                f"{other.subset_hash} and {run.subset_hash}: they are no pair"
            )
