"""Print what evaluators return."""

from collections.abc import Mapping
from typing import Any

from equilidar.evaluation.text_table import text_table

DIFFICULTIES = ("easy", "moderate", "hard")

Figures = Mapping[str, Mapping[str, Any]]
"""{class: {metric: {"AP_R11": [easy, moderate, hard], "AP_R40": [...]}, a number or None}}; other entries (lists) are
left alone."""


def format_table(figures: Figures) -> str:
    """Return figures as a text table: average precision with R40 before R11, numbers as they are; a line for each."""
    if any(isinstance(values, float) for by_metric in figures.values() for values in by_metric.values()):
        return _numbers(figures)
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


def _numbers(figures: Figures) -> str:
    """Return a line for each class and a column for each metric: those of benchmarks without difficulties."""
    metrics = list(dict.fromkeys(metric for by_metric in figures.values() for metric in by_metric))
    rows = [[name, *(by_metric.get(metric) for metric in metrics)] for name, by_metric in figures.items()]
    return text_table(["class", *metrics], rows)
