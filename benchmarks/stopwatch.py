"""Time on the wall and of the processor, children included: on a busy machine only the latter is worth comparing."""

import resource
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seconds:
    """A span of time."""

    wall: float
    cpu: float

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __mul__(self, factor: float) -> "Seconds":
        return Seconds(self.wall * factor, self.cpu * factor)


class Stopwatch:
    """Runs from its making; each lap ends the one before."""

    def __init__(self) -> None:
        self._last = _now()

    def lap(self) -> Seconds:
        """Return the time since the last lap."""
        now = _now()
        last, self._last = self._last, now
        return Seconds(now.wall - last.wall, now.cpu - last.cpu)


def _now() -> Seconds:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Seconds(time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages))


def peak_megabytes() -> float:
    """Return the greatest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
