"""The result table: a row for each kind of start, average precision with its seeds and numbers of objects."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equilidar.report.run_summary import RunSummary

MODERATE = 1
_LEVELS = ("easy", "moderate", "hard")
_FIRST_ROWS = ("scratch", "pretrained", "frozen")
_FIRST_CLASSES = ("car", "pedestrian", "cyclist")


def evaluated(runs: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """Return the runs that have figures by their label: scratch, pretrained, frozen, then others as given."""
    labels = list(dict.fromkeys(run.label for run in runs if run.figures is not None))
    labels.sort(key=lambda label: _FIRST_ROWS.index(label) if label in _FIRST_ROWS else len(_FIRST_ROWS))
    return {label: [run for run in runs if run.label == label and run.figures is not None] for label in labels}


def metric_keys(runs: Sequence[RunSummary]) -> list[tuple[str, str]]:
    """Return (class, metric) of all figures: car first, 3D before bird's-eye view, loose overlaps before strict."""
    found = dict.fromkeys(
        (name, metric)
        for run in runs
        for name, metrics in (run.figures or {}).items()
        for metric, values in metrics.items()
        if isinstance(values, dict) and "AP_R40" in values
    )

    def order(key: tuple[str, str]) -> tuple[int, int, str]:
        name, metric = key
        kind = metric.partition("@")[0]
        place = _FIRST_CLASSES.index(name) if name in _FIRST_CLASSES else len(_FIRST_CLASSES)
        return place, ("3d", "bev", "bbox", "aos").index(kind), metric.partition("@")[2] or "official"

    return sorted(found, key=order)


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the seeds that it was measured with."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def text(self) -> str:
        return f"{self.mean:.2f}"

    @property
    def range_text(self) -> str:
        """Lowest to highest, empty where there is one value."""
        return f"{min(self.values):.2f} to {max(self.values):.2f}" if len(self.values) > 1 else ""


def spread(
    runs: Sequence[RunSummary], name: str, metric: str, key: str = "AP_R40", level: int = MODERATE
) -> Spread | None:
    """Return a figure of runs that differ in their seed; None where none of them has it."""
    values = []
    for run in runs:
        entry = (run.figures or {}).get(name, {}).get(metric)
        if isinstance(entry, dict) and key in entry:
            values.append(float(entry[key][level]))
    return Spread(tuple(values)) if values else None


def num_objects(runs: Sequence[RunSummary], name: str, level: int = MODERATE) -> str:
    """Return how many objects were to be found, "unknown" where no run says."""
    counts = {
        int(entry[level])
        for run in runs
        if (entry := (run.figures or {}).get(name, {}).get("num_ground_truth")) is not None
    }
    return " / ".join(str(count) for count in sorted(counts)) or "unknown"


def seeds_text(runs: Sequence[RunSummary]) -> str:
    """Say how many runs a row stands on; one seed is called one seed."""
    seeds = [run.seed for run in runs]
    known = ", ".join(str(seed) for seed in sorted(seed for seed in seeds if seed is not None))
    number = "one seed" if len(runs) == 1 else f"{len(runs)} seeds"
    return f"{number} ({known})" if known else number


def verdict(rows: dict[str, list[RunSummary]]) -> str:
    """Return the comparison of pretrained and scratch in a sentence, whichever is better."""
    if "scratch" not in rows or "pretrained" not in rows:
        return ""
    keys = [key for key in metric_keys([run for runs in rows.values() for run in runs]) if key[1].startswith("3d")]
    for name, metric in keys:
        before, after = spread(rows["scratch"], name, metric), spread(rows["pretrained"], name, metric)
        if before and after:
            gain = after.mean - before.mean
            how = "above" if gain > 0 else "below" if gain < 0 else "level with"
            size = f"{abs(gain):.2f} AP {how}" if gain else how
            few = min(len(before.values), len(after.values))
            caution = (
                "One seed: a difference of this kind can be chance." if few == 1 else f"{few} seeds: see the ranges."
            )
            return f"Pretrained is {size} scratch ({describe(name, metric)}, R40, moderate). {caution}"
    return ""


def describe(name: str, metric: str) -> str:
    """Return a metric in words: car, 3D, IoU 0.5."""
    kind, _, overlap = metric.partition("@")
    words = {"3d": "3D", "bev": "bird's-eye view", "bbox": "2D box", "aos": "orientation (AOS)"}.get(kind, kind)
    if not overlap:
        return f"{name}, {words}, official overlap"
    return f"{name}, {words}, IoU {overlap}" if overlap[0].isdigit() else f"{name}, {words}, {overlap} overlap"


def result_table(runs: Sequence[RunSummary]) -> str:
    """Return the headline table as HTML: moderate, R40; a row for each label."""
    rows = evaluated(runs)
    keys = [key for key in metric_keys(runs) if key[1].startswith("3d")]
    best = {key: max((s.mean for r in rows.values() if (s := spread(r, *key))), default=0.0) for key in keys}
    classes = list(dict.fromkeys(name for name, _ in keys))
    head = "".join(
        f'<th colspan="{sum(key[0] == name for key in keys)}">{html.escape(name)}'
        f"<small>{num_objects(runs, name)} objects</small></th>"
        for name in classes
    )
    labels = "".join(f"<th>{html.escape(describe(*key).partition(', ')[2])}</th>" for key in keys)
    body = "".join(_row(label, members, keys, best) for label, members in rows.items())
    return (
        '<div class="wide"><table class="results"><thead>'
        f'<tr><th rowspan="2">start</th>{head}</tr><tr>{labels}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(
    label: str, members: Sequence[RunSummary], keys: Sequence[tuple[str, str]], best: dict[tuple[str, str], float]
) -> str:
    cells = []
    for key in keys:
        figure = spread(members, *key)
        if figure is None:
            cells.append("<td>-</td>")
            continue
        is_best = figure.mean == best[key] > 0
        text = f"<b>{figure.text}</b>" if is_best else figure.text
        bar = f'class="bar" style="--part:{figure.mean:.1f}%"'
        cells.append(f"<td {bar}>{text}<small>{figure.range_text}</small></td>")
    name = f"{html.escape(label)}<small>{html.escape(seeds_text(members))}</small>"
    return f"<tr><th>{name}</th>{''.join(cells)}</tr>"


def details_table(runs: Sequence[RunSummary]) -> str:
    """Return every figure of every run as HTML: all metrics and difficulties, R40 and R11."""
    rows = []
    for label, members in evaluated(runs).items():
        for run in members:
            for name, metric in metric_keys([run]):
                figures = [
                    spread([run], name, metric, key, level) for key in ("AP_R40", "AP_R11") for level in range(3)
                ]
                cells = "".join(f"<td>{figure.text if figure else '-'}</td>" for figure in figures)
                seed = "-" if run.seed is None else run.seed
                what = html.escape(describe(name, metric))
                rows.append(f"<tr><th>{html.escape(label)}</th><td>{seed}</td><td>{what}</td>{cells}</tr>")
    levels = "".join(f"<th>{level}</th>" for level in _LEVELS)
    return (
        '<div class="wide"><table><thead><tr><th rowspan="2">start</th><th rowspan="2">seed</th>'
        '<th rowspan="2">figure</th><th colspan="3">AP R40</th><th colspan="3">AP R11</th></tr>'
        f"<tr>{levels}{levels}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
