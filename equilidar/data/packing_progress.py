"""How far a long task is, and sizes and times as a user reads them."""

import sys
from types import TracebackType

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """A bar with the time that is left; into a file or a pipe it prints a line now and then.

    Args:
        total: of what is to be done.
        unit: what it is.
    """

    def __init__(self, total: int, unit: str = "sweep") -> None:
        terminal = sys.stdout.isatty()
        self._bar = tqdm(
            total=total,
            unit=unit,
            file=sys.stdout,
            dynamic_ncols=terminal,
            mininterval=0.2 if terminal else _SECONDS_BETWEEN_LINES,
            ascii=not terminal,
        )

    def show(self, done: int) -> None:
        """Move the bar to `done`."""
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def size_text(num_bytes: int) -> str:
    """Return "43.8 MB"."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB" if size < 1000 else f"{size / 1000:.1f} TB"


def time_text(seconds: float) -> str:
    """Return "1 h 05 min", "3 min 20 s" or "12 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{max(rest, 1)} s"
