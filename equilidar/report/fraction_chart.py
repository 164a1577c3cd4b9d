"""Average precision over the fraction of labels, a line for each start: what pretraining is for."""

import html
import math
from collections.abc import Sequence

import numpy as np

from equilidar.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, padded, rows_of_grid
from equilidar.report.curves import colors, legend
from equilidar.report.groups import Group, groups_of, percent
from equilidar.report.results import describe, metric_keys
from equilidar.report.run_summary import RunSummary


def fraction_charts(runs: Sequence[RunSummary]) -> str:
    """Return a chart for each experiment that was run at several label fractions and each 3D figure, as HTML."""
    shade, parts = colors(runs), []
    groups = [group for group in groups_of(runs) if group.fraction is not None]
    for experiment in dict.fromkeys(group.experiment for group in groups):
        own = [group for group in groups if group.experiment == experiment]
        if len({group.fraction for group in own}) < 2:
            continue
        members = [run for group in own for run in group.runs]
        keys = [key for key in metric_keys(members) if key[1].startswith("3d")]
        charts = "".join(fraction_chart(own, name, metric, shade) for name, metric in keys)
        heading = html.escape(f"{experiment}: AP over labels, R40, moderate")
        parts.append(f'<h2>{heading}</h2>{legend(members, shade)}<div class="charts">{charts}</div>')
    return "".join(parts)


def fraction_chart(groups: Sequence[Group], name: str, metric: str, shade: dict[str, str]) -> str:
    """Return an SVG chart: a dot for each run, a line through the means, bars of one standard deviation.

    A fraction at which a start has a single run is a hollow dot: it is no mean.

    Args:
        groups: of one experiment, at two fractions at least.
        name: class.
        metric: of the figure.
        shade: color of each start.
    """
    figures = [(group, figure) for group in groups if (figure := group.spread(name, metric)) is not None]
    values = [v for _, f in figures for v in (*f.values, f.mean - (f.std or 0), f.mean + (f.std or 0))]
    fractions = sorted({group.fraction for group, _ in figures if group.fraction is not None})
    if len(fractions) < 2:
        return ""
    low, high = math.log10(fractions[0]), math.log10(fractions[-1])
    margin = 0.06 * (high - low)
    x = Axis(low - margin, high + margin, LEFT, WIDTH - RIGHT)
    y = Axis(*padded(np.array(values)), HEIGHT - BOTTOM, TOP)
    title = html.escape(describe(name, metric))
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} over labels">',
        f'<text class="title" x="{LEFT}" y="18">{title}</text>',
        *rows_of_grid(y),
    ]
    for fraction in fractions:
        at = x.place(math.log10(fraction))
        text = f"{100 * fraction:g} %"
        parts.append(f'<text class="tick" x="{at:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{text}</text>')
    parts.append(f'<text class="tick" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">labels</text>')
    for start in dict.fromkeys(group.start for group, _ in figures):
        own = [(group, figure) for group, figure in figures if group.start == start]
        line = " ".join(f"{x.place(math.log10(g.fraction or 1)):.1f},{y.place(f.mean):.1f}" for g, f in own)
        parts.append(f'<polyline class="{shade[start]}" points="{line}"/>')
        for group, figure in own:
            at = x.place(math.log10(group.fraction or 1))
            hint = f"<title>{html.escape(start)}, {percent(group.fraction)}: {figure.text}, {group.runs_text}</title>"
            if figure.std is not None:
                top, bottom = y.place(figure.mean + figure.std), y.place(figure.mean - figure.std)
                parts.append(f'<line class="spread {shade[start]}" x1="{at:.1f}" x2="{at:.1f}" y1="{top:.1f}" '
                             f'y2="{bottom:.1f}"/>')  # fmt: skip
            kind = "hollow" if figure.std is None else "run"
            parts += [
                f'<circle class="{kind} {shade[start]}" cx="{at:.1f}" cy="{y.place(value):.1f}" r="3">{hint}</circle>'
                for value in figure.values
            ]
    return "".join([*parts, "</svg>"])
