"""A table of all that was logged, which a resumed run continues."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from equilidar.atomic_file import atomic_file

FILE = "metrics.csv"


class ResumableCSVLogger(Logger):
    """Writes metrics.csv: one row per step, a column per metric, numbers as exact as they were.

    Lightning's own deletes the file of the run that it resumes. Here each row is on its way to the disk when it is
    logged; rows beyond the checkpoint that a run resumes from are dropped, for they will be logged again.

    Args:
        folder: run directory.
        from_step: optimizer steps done when this attempt starts.
    """

    def __init__(self, folder: Path | str, from_step: int = 0) -> None:
        super().__init__()
        self._path = Path(folder) / FILE
        self._from_step = from_step
        self._columns: list[str] = []
        self._file: io.TextIOWrapper | None = None
        self._row: dict[str, Any] = {}
        self._row_start = 0

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config is in run.json."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row, or add to the last one if it is of the same step."""
        if self._file is None:
            self._open()
        assert self._file is not None
        row = {"step": 0 if step is None else step, **metrics}
        if self._row and self._row["step"] == row["step"]:
            row = {**self._row, **row}
            self._file.seek(self._row_start)
            self._file.truncate()
        if new := [name for name in row if name not in self._columns]:
            self._rewrite(self._columns + new, read_metrics(self._path))
        self._row, self._row_start = row, self._file.tell()
        csv.DictWriter(self._file, self._columns).writerow({name: _exact(value) for name, value in row.items()})
        self._file.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        rows = [row for row in read_metrics(self._path) if row["step"] < self._from_step]
        columns = dict.fromkeys(name for row in rows for name in row)
        self._rewrite(list(columns) or ["step"], rows)

    def _rewrite(self, columns: list[str], rows: list[dict[str, float]]) -> None:
        if self._file is not None:
            self._file.close()
        self._columns = columns
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows({name: _exact(value) for name, value in row.items()} for row in rows)
        with atomic_file(self._path) as file:
            file.write(text.getvalue().encode())
        self._file = self._path.open("a", newline="")
        self._file.seek(0, io.SEEK_END)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics.csv, without empty cells; a last line that was cut short by a kill is left out."""
    if not path.is_file():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole))
    return [{name: float(value) for name, value in row.items() if name and value} for row in rows]


def _exact(value: float | int) -> str:
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
