"""Figures as aligned text."""

import math
from collections.abc import Sequence

Cell = str | float | int | None


def text_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int = 4) -> str:
    """Return a table: text to the left, numbers to the right, a dash for what is not defined."""
    lines = [list(header), *([_text(cell, digits) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    is_text = [all(isinstance(row[column], str) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(line, widths, is_text, strict=True)
        ).rstrip()
        for line in lines
    )


def _text(cell: Cell, digits: int) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    return f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell)


def without_nan(value: object) -> object:
    """Return figures with None instead of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
