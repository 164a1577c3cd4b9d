"""Time of the stages of a run."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Clock:
    """Sums the milliseconds of each stage of one run; a stage may be entered more than once."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the block to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, 1000 * (time.perf_counter() - start))

    def add(self, stage: str, milliseconds: float) -> None:
        """Count so much to `stage`."""
        self.stages[stage] = self.stages.get(stage, 0.0) + milliseconds

    @contextmanager
    def inside(self, module: Any, function: str, stage: str, outer: str) -> Iterator[None]:
        """Count calls of a module's function to `stage` instead of `outer`, which they are part of."""
        original = getattr(module, function)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = original(*args, **kwargs)
            milliseconds = 1000 * (time.perf_counter() - start)
            self.add(stage, milliseconds)
            self.add(outer, -milliseconds)
            return result

        setattr(module, function, timed)
        try:
            yield
        finally:
            setattr(module, function, original)


def medians(runs: list[Clock]) -> dict[str, float]:
    """Return the median milliseconds of each stage."""
    return {stage: statistics.median(run.stages[stage] for run in runs) for stage in runs[0].stages}
