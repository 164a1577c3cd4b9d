"""Results as text, CSV and JSON: R40 first, R11 with the size of its cliff, a single run never as a mean."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equilidar.report.groups import Group, Spread, groups_of, percent
from equilidar.report.paired import paired_differences
from equilidar.report.results import LEVELS, describe, metric_keys
from equilidar.report.run_summary import RunSummary

_RECALLS = {"AP_R40": "R40", "AP_R11": "R11"}


@dataclass(frozen=True)
class Row:
    """One figure of one group; the columns of the CSV file.

    Attributes:
        mean: over the runs; None with a single one, which stands in `value`.
        std: sample standard deviation; None with a single run.
        value: of the only run; None with several.
        cliff: how far the same detections' figure moves with slightly other scores; None where not measured.
        values: of the runs.
    """

    experiment: str
    fraction: float | None
    start: str
    name: str
    metric: str
    difficulty: str
    recall: str
    num_runs: int
    num_seeds: int
    num_subsets: int | None
    mean: float | None
    std: float | None
    value: float | None
    cliff: float | None
    values: tuple[float, ...]


def rows_of(groups: Sequence[Group]) -> list[Row]:
    """Return every figure of every group, R40 before R11."""
    rows: list[Row] = []
    for group in groups:
        for name, metric in metric_keys(group.runs):
            for key, recall in _RECALLS.items():
                for level, difficulty in enumerate(LEVELS):
                    figure = group.spread(name, metric, key, level)
                    if figure is not None:
                        rows.append(_row(group, name, metric, difficulty, recall, figure))
    return rows


def text_table(runs: Sequence[RunSummary]) -> str:
    """Return moderate 3D average precision by experiment and fraction, with paired differences below."""
    groups = groups_of(runs)
    if not groups:
        return "none of these runs was evaluated"
    lines: list[str] = []
    for experiment, fraction in dict.fromkeys((group.experiment, group.fraction) for group in groups):
        own = [group for group in groups if (group.experiment, group.fraction) == (experiment, fraction)]
        lines += ["", f"{experiment}, {percent(fraction)}: AP in percent, moderate"]
        for name, metric in [key for key in metric_keys(_runs(own)) if key[1].startswith("3d")]:
            lines.append(f"  {describe(name, metric)}")
            for group in own:
                r40, r11 = (group.spread(name, metric, key) for key in _RECALLS)
                if r40 is not None and r11 is not None:
                    figures = f"R40 {r40.text:<15} R11 {r11.text:<15} ({r11.cliff_text})"
                    lines.append(f"    {group.start:<14}{figures:<62}{group.runs_text}")
            lines += [f"    {pair.text}" for pair in paired_differences(own, name, metric)]
        lines += [line for group in own for line in _means(group)]
    return "\n".join(lines[1:])


def _means(group: Group) -> list[str]:
    """Return a line with the means over classes of benchmarks without difficulties (mAP and NDS, APH, CDS)."""
    means = [run.figures["mean"] for run in group.runs if run.figures is not None and "mean" in run.figures]
    if not means:
        return []
    parts = []
    for metric in means[0]:
        values = [mean[metric] for mean in means if isinstance(mean.get(metric), float)]
        deviation = f" +- {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        parts += [f"{metric} {np.mean(values):.4f}{deviation}"] if values else []
    return [f"    {group.start:<14}{'   '.join(parts)}   {group.runs_text}"]


def csv_table(runs: Sequence[RunSummary]) -> str:
    """Return every figure as CSV, a row for each group, class, metric, difficulty and recall."""
    file = io.StringIO()
    rows = [{**asdict(row), "values": " ".join(f"{v:.4f}" for v in row.values)} for row in rows_of(groups_of(runs))]
    writer = csv.DictWriter(file, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def json_table(runs: Sequence[RunSummary]) -> str:
    """Return every figure and every paired difference (R40, moderate) as JSON, with the runs that they come from."""
    groups = groups_of(runs)
    pairs: list[dict[str, Any]] = []
    for name, metric in metric_keys(_runs(groups)):
        for pair in paired_differences(groups, name, metric):
            pairs.append(
                {
                    "experiment": pair.after.experiment, "fraction": pair.after.fraction, "name": name,
                    "metric": metric, "before": pair.before.start, "after": pair.after.start,
                    "label_seeds": pair.seeds, "differences": pair.differences,
                    "mean": None if pair.interval is None else pair.mean,
                    "interval": pair.interval,
                }
            )  # fmt: skip
    content = {"figures": [asdict(row) for row in rows_of(groups)], "paired": pairs, "runs": [_origin(r) for r in runs]}
    return json.dumps(content, indent=1) + "\n"


def write_tables(page: Path, runs: Sequence[RunSummary]) -> None:
    """Write text, CSV and JSON beside a page, under its name."""
    for suffix, content in ((".txt", text_table(runs) + "\n"), (".csv", csv_table(runs)), (".json", json_table(runs))):
        path = page.with_suffix(suffix)
        part = path.with_name(f"{path.name}.part")
        part.write_text(content, encoding="utf-8")
        part.replace(path)


def _row(group: Group, name: str, metric: str, difficulty: str, recall: str, figure: Spread) -> Row:
    is_single = len(figure.values) == 1
    return Row(
        group.experiment, group.fraction, group.start, name, metric, difficulty, recall,
        len(group.runs), group.num_seeds, group.num_subsets,
        None if is_single else figure.mean, figure.std, figure.values[0] if is_single else None, figure.cliff,
        figure.values,
    )  # fmt: skip


def _origin(run: RunSummary) -> dict[str, Any]:
    names = ("experiment", "label", "command", "seed", "fraction", "label_seed", "subset_hash")
    return {"folder": str(run.folder), **{name: getattr(run, name) for name in names}}


def _runs(groups: Sequence[Group]) -> list[RunSummary]:
    return [run for group in groups for run in group.runs]
