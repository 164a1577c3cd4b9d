"""Logged curves of several runs, sorted into what a reader looks for."""

import html
import re
from collections.abc import Sequence

from equilidar.report.charts import Line, line_chart
from equilidar.report.groups import percent
from equilidar.report.run_summary import RunSummary, setting
from equilidar.report.style import COLORS

_SECTIONS = (
    ("validation", r"^val/"),
    ("rotation accuracy", r"accuracy"),
    ("spread of features, gradients", r"\bstd\b|_std|std_|deviation|rank|grad|collapse|monitor"),
    (
        "pairing, speed, schedule",
        r"pairs|paired|matched|retrieved|reached|per_s|seconds|fraction|skipped|\blr\b|lr-|rate",
    ),
    ("losses", r""),
)
_ORDER = ("losses", "rotation accuracy", "spread of features, gradients", "validation", "pairing, speed, schedule")
_COMMANDS = {"pretrain": "Pretraining", "finetune": "Finetuning"}
_SHOWN_AT_ONCE = 6


def colors(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Return the color of each label: scratch gray, pretrained blue, others in turn."""
    fixed = {"scratch": COLORS[0], "pretrained": COLORS[1]}
    free = [color for color in COLORS if color not in fixed.values()]
    others = [label for label in dict.fromkeys(run.label for run in runs) if label not in fixed]
    return fixed | {label: free[index % len(free)] for index, label in enumerate(others)}


def sections(runs: Sequence[RunSummary], shade: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Return (title, SVG charts) of all that was logged, what matters most first."""
    sorted_names: dict[str, list[str]] = {title: [] for title in _ORDER}
    for name in sorted({name for run in runs for name in run.series}, key=_importance):
        title = next(title for title, pattern in _SECTIONS if re.search(pattern, name))
        sorted_names[title].append(name)
    return [(title, [_chart(name, runs, shade) for name in names]) for title, names in sorted_names.items() if names]


def curves_html(runs: Sequence[RunSummary]) -> str:
    """Return all sections as HTML, pretraining before finetuning; beyond six charts a section folds."""
    shade = colors(runs)
    parts = []
    for command in sorted({run.command for run in runs}, key=lambda name: (name != "pretrain", name)):
        own = [run for run in runs if run.command == command]
        for title, charts in sections(own, shade):
            first, more = charts[:_SHOWN_AT_ONCE], charts[_SHOWN_AT_ONCE:]
            heading = html.escape(f"{_COMMANDS.get(command, command)}: {title}")
            parts.append(f'<h2>{heading}</h2>{legend(own, shade)}<div class="charts">{"".join(first)}</div>')
            if more:
                folded = f'<div class="charts">{"".join(more)}</div>'
                parts.append(f"<details><summary>{len(more)} more</summary>{folded}</details>")
    return "".join(parts)


def legend(runs: Sequence[RunSummary], shade: dict[str, str]) -> str:
    """Return the labels with their colors as HTML."""
    entries = [
        f'<span><i class="{shade[label]}"></i>{html.escape(label)}</span>'
        for label in dict.fromkeys(run.label for run in runs)
    ]
    return f'<div class="legend">{"".join(entries)}</div>'


def _chart(name: str, runs: Sequence[RunSummary], shade: dict[str, str]) -> str:
    lines = [Line(_line_name(run), shade[run.label], run.series[name]) for run in runs if name in run.series]
    return line_chart(name, lines, _chance(runs) if "rotation" in name and name.endswith("accuracy") else None)


def _chance(runs: Sequence[RunSummary]) -> tuple[str, float] | None:
    """Return what guessing gives, where all runs tell apart the same number of rotations."""
    numbers = {setting(run, "objective", "rotation", "num_classes") for run in runs}
    number = numbers.pop() if len(numbers) == 1 else None
    return (f"chance: 1 in {number}", 1 / number) if isinstance(number, int) and number > 0 else None


def _line_name(run: RunSummary) -> str:
    parts = [run.label]
    if run.command == "finetune" and run.fraction is not None:
        parts.append(percent(run.fraction))
        parts += [] if run.label_seed is None else [f"label seed {run.label_seed}"]
    return ", ".join(parts if run.seed is None else [*parts, f"seed {run.seed}"])


def _importance(name: str) -> tuple[int, str]:
    """Totals and headlines before their parts."""
    last = name.rsplit("/", 1)[-1]
    return (0 if last in ("loss", "total", "headline") else 1), name
