"""Print what evaluators return."""

from collections.abc import Mapping
from typing import Any

DIFFICULTIES = ("easy", "moderate", "hard")

Figures = Mapping[str, Mapping[str, Any]]
"""{class: {metric: {"AP_R11": [easy, moderate, hard], "AP_R40": [...]} or None}}; other entries are left alone."""


def format_table(figures: Figures) -> str:
    """Return average precision as a text table, R40 before R11, a line for each class and metric."""
    levels = "".join(f"{level:>10}" for level in DIFFICULTIES)
    lines = [f"{'class':<12}{'metric':<10}{levels} (R40) {levels} (R11)"]
    for name, by_metric in figures.items():
        for metric, values in by_metric.items():
            if values is None:
                lines.append(f"{name:<12}{metric:<10}{'-':>10}")
            elif isinstance(values, Mapping):
                r40, r11 = ("".join(f"{ap:10.2f}" for ap in values[key]) for key in ("AP_R40", "AP_R11"))
                lines.append(f"{name:<12}{metric:<10}{r40}       {r11}")
    return "\n".join(lines)
