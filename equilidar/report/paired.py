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
        seeds: label seeds (run seeds where labels are not stated) of the pairs.
        differences: after minus before, a value for each pair.
        interval: bootstrap interval of the mean; None with a single pair.
    """

    before: Group
    after: Group
    seeds: tuple[int | None, ...]
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
        few = f"; fewer than {ENOUGH} label subsets carry no claim" if len(self.differences) < ENOUGH else ""
        num = len(self.differences)
        return f"{who}: {self.mean:+.2f}, {COVERAGE:.0%} interval {low:+.2f} to {high:+.2f}, {num} pairs{few}"


def paired_differences(
    groups: Sequence[Group], name: str, metric: str, key: str = "AP_R40", level: int = MODERATE
) -> list[Paired]:
    """Compare every other start with scratch (or, without one, the first) within each experiment and label fraction.

    Several runs of one label seed are averaged before they are paired.

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
        before = _by_label_seed(first, name, metric, key, level)
        for other in (group for group in own if group is not first):
            after = _by_label_seed(other, name, metric, key, level)
            seeds = [seed for seed in before if seed in after]
            for seed in seeds:
                _check_subsets(seed, [*before[seed][0], *after[seed][0]])
            differences = [after[seed][1] - before[seed][1] for seed in seeds]
            if differences:
                result.append(Paired(first, other, tuple(seeds), tuple(differences), bootstrap_interval(differences)))
    return result


def bootstrap_interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Return the percentile interval of the mean over resampled pairs, None for a single pair."""
    if len(differences) < 2:
        return None
    values = np.asarray(differences, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(1), [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def _by_label_seed(
    group: Group, name: str, metric: str, key: str, level: int
) -> dict[int | None, tuple[list[RunSummary], float]]:
    members: dict[int | None, list[RunSummary]] = {}
    for run in group.runs:
        members.setdefault(run.seed if run.label_seed is None else run.label_seed, []).append(run)
    figures = {seed: (runs, spread(runs, name, metric, key, level)) for seed, runs in members.items()}
    return {seed: (runs, figure.mean) for seed, (runs, figure) in sorted(figures.items(), key=str) if figure}


def _check_subsets(seed: int | None, runs: Sequence[RunSummary]) -> None:
    hashes = {run.subset_hash: run for run in runs}
    if len(hashes) > 1:
        (a, first), (b, second) = list(hashes.items())[:2]
        raise ValueError(
            f"{first.folder} and {second.folder} both say label seed {seed}, but were trained on subsets {a} and {b}: "
            "they are no pair"
        )
