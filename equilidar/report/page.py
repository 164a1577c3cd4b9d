"""One self-contained HTML page about finished runs: no scripts, nothing to be fetched, under 3 MB."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from equilidar.report.curves import curves_html
from equilidar.report.fraction_chart import fraction_charts
from equilidar.report.origin import origin_html
from equilidar.report.results import details_table, paired_table, result_table, verdict
from equilidar.report.run_summary import RunSummary
from equilidar.report.style import CSS

_PICTURE_BYTES = 2_000_000
_HOW_TO_READ = (
    "Where a row stands on several runs: mean ± standard deviation, below it lowest to highest. A single run is shown "
    "by itself. R11 is the mean over 11 recall positions; its cliff is how far it moves where the same detections get "
    "slightly other scores: smaller differences in R11 say nothing. With fewer than 41 objects even a perfect detector "
    "stays below 100."
)
_HOW_PAIRED = (
    "Runs on one label subset are compared with one another; below each difference its 95 % interval, a bootstrap "
    "over label subsets. Fewer than five subsets carry no claim."
)


def write_report(
    path: str | Path, runs: Sequence[RunSummary], title: str = "equilidar report", notes: Sequence[str] = ()
) -> Path:
    """Write a page with results, curves, pictures and provenance of finished runs.

    Results are shown as they are: a pretrained detector that is worse than one from scratch, too.

    Args:
        path: the HTML file.
        runs: finished runs; those that differ in their seeds alone are one row of the result table.
        title: of the page.
        notes: paragraphs of plain text below the results (data, hardware, what was seeded).

    Raises:
        ValueError: there are no runs.
    """
    if not runs:
        raise ValueError("runs: a report needs at least one finished run")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(_page(runs, title, notes), encoding="utf-8")
    part.replace(path)
    return path


def _page(runs: Sequence[RunSummary], title: str, notes: Sequence[str]) -> str:
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="soft">{_what(runs)}</p>', _results(runs)]
    body += [f"<p>{html.escape(note)}</p>" for note in notes]
    body += [_pictures(runs), curves_html(runs), f"<h2>Provenance</h2>{origin_html(runs)}"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _what(runs: Sequence[RunSummary]) -> str:
    with_figures = sum(run.figures is not None for run in runs)
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {with_figures} of them evaluated"


def _results(runs: Sequence[RunSummary]) -> str:
    if all(run.figures is None for run in runs):
        return "<p>None of these runs was evaluated.</p>"
    paired = paired_table(runs)
    return (
        "".join(f'<p class="verdict">{html.escape(sentence)}</p>' for sentence in verdict(runs))
        + "<h2>Average precision in percent, R40, moderate</h2>"
        + result_table(runs)
        + f'<p class="soft">{_HOW_TO_READ}</p>'
        + fraction_charts(runs)
        + (f'<h2>Differences on the same labels</h2>{paired}<p class="soft">{_HOW_PAIRED}</p>' if paired else "")
        + f"<details><summary>All difficulties and metrics, R40 and R11</summary>{details_table(runs)}</details>"
    )


def _pictures(runs: Sequence[RunSummary]) -> str:
    """Return pictures as HTML up to a limit in bytes: of one run of each label, scene by scene."""
    first = list({run.label: run for run in reversed(runs) if run.pictures}.values())[::-1]
    longest = max((len(run.pictures) for run in first), default=0)
    turns = [(run, run.pictures[turn]) for turn in range(longest) for run in first if turn < len(run.pictures)]
    shown, size = [], 0
    for run, picture in turns:
        data = picture.read_bytes()
        if size + len(data) > _PICTURE_BYTES:
            continue
        size += len(data)
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        seed = "" if run.seed is None else f", seed {run.seed}"
        name = html.escape(f"{run.label}{seed}: {picture.stem.replace('_', ' ')}")
        shown.append(f'<figure><img src="{source}" alt="{name}"><figcaption>{name}</figcaption></figure>')
    if not shown:
        return ""
    left_out = len(turns) - len(shown)
    more = (
        f'<p class="soft">{left_out} more would make this page too large: see the run directories.</p>'
        if left_out
        else ""
    )
    return f'<h2>Seen from above</h2><div class="pictures">{"".join(shown)}</div>{more}'
