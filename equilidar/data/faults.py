"""Faulty sweeps: skipped with their names, and too many of them stop the run."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from equilidar.structures import Sweep


class FaultySweepError(ValueError):
    """A sweep cannot be used: corrupt, empty, truncated, or holding values that are not finite."""


class TooManyFaultsError(RuntimeError):
    """More sweeps are faulty than the run allows."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A sample that was skipped.

    Attributes:
        key: name of the sample.
        reason: what is wrong with it, the file included.
    """

    key: str
    reason: str


def points_flaw(sweep: Sweep) -> str | None:
    """Return what is not finite in a sweep's points: readers of this package look themselves, a user's may not."""
    wrong = ~(sweep.xyz.isfinite().all(1) & sweep.features.isfinite().all(1))
    return f"{int(wrong.sum())} of {len(wrong)} points are not finite" if bool(wrong.any()) else None


@dataclass
class FaultBudget:
    """Counts faulty samples and stops the run when they are too many.

    The rule: stop as soon as at least `min_faults` samples were faulty AND they are more than `max_fraction` of the
    samples seen so far. One corrupt sweep spoils two pairs, so the default of 3 lets a single bad file pass early in a
    run, when any one fault is above one percent. A sample that is met again in a later epoch counts again, both among
    the seen and among the faulty. Each process of a distributed run keeps its own count.

    Attributes:
        max_fraction: of samples seen, in [0, 1].
        min_faults: number below which nothing stops.
        seen: samples seen so far, faulty ones included.
        faulty: samples that were faulty.
        reasons: what was wrong, by sample name, each name once.

    Raises:
        ValueError: the settings are out of range.
    """

    max_fraction: float = 0.01
    min_faults: int = 3
    seen: int = 0
    faulty: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.max_fraction <= 1:
            raise ValueError(f"faults.max_fraction must lie in [0, 1], got {self.max_fraction}")
        if self.min_faults < 1:
            raise ValueError(f"faults.min_faults must be at least 1, got {self.min_faults}")

    def observe(self, num_seen: int, faults: Iterable[Fault]) -> list[Fault]:
        """Count `num_seen` samples, `faults` among them; return those whose names are new, to be logged.

        Raises:
            TooManyFaultsError: the budget is spent; the message gives the count and the first names.
        """
        faults = list(faults)
        new = {fault.key: fault for fault in faults if fault.key not in self.reasons}
        self.seen += num_seen
        self.faulty += len(faults)
        self.reasons.update((fault.key, fault.reason) for fault in new.values())
        if self.faulty >= self.min_faults and self.faulty > self.max_fraction * self.seen:
            raise TooManyFaultsError(
                f"{self.summary()}; allowed are {self.max_fraction:.2%} "
                "(raise faults.max_fraction to go on, or repair the files)"
            )
        return list(new.values())

    def summary(self, num_names: int = 5) -> str:
        """Return one line: how many samples were faulty, which, and why."""
        fraction = self.faulty / self.seen if self.seen else 0.0
        text = f"{self.faulty} of {self.seen} samples ({fraction:.2%}) are faulty"
        if not self.reasons:
            return text
        named = "; ".join(f"{key}: {reason}" for key, reason in list(self.reasons.items())[:num_names])
        more = len(self.reasons) - num_names
        return f"{text}: {named}" + (f"; and {more} more" if more > 0 else "")

    def state_dict(self) -> dict[str, Any]:
        """Return the counts, for a checkpoint."""
        return {"seen": self.seen, "faulty": self.faulty, "reasons": dict(self.reasons)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from `state`."""
        self.seen, self.faulty, self.reasons = state["seen"], state["faulty"], dict(state["reasons"])
