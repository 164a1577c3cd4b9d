"""Results as HTML: a row for each kind of start, with its spread over runs, its numbers of objects, and differences."""

import html
from collections.abc import Sequence

from equilidar.report.groups import MODERATE, Group, groups_of, is_of_boxes, percent, spread
from equilidar.report.paired import Paired, paired_differences
from equilidar.report.run_summary import RunSummary

LEVELS = ("easy", "moderate", "hard")
_FIRST_CLASSES = ("car", "pedestrian", "cyclist")


def metric_keys(runs: Sequence[RunSummary]) -> list[tuple[str, str]]:
    """Return (class, metric) of all figures: car first, 3D before bird's-eye view, official overlaps before others."""
    found = dict.fromkeys(
        (name, metric)
        for run in runs
        for name, metrics in (run.figures or {}).items()
        for metric, values in metrics.items()
        if (isinstance(values, dict) and "AP_R40" in values) or (values is None and is_of_boxes(metric))
    )

    def order(key: tuple[str, str]) -> tuple[int, int, str]:
        name, metric = key
        kind = metric.partition("@")[0]
        place = _FIRST_CLASSES.index(name) if name in _FIRST_CLASSES else len(_FIRST_CLASSES)
        return place, ("3d", "bev", "bbox", "aos").index(kind), metric.partition("@")[2]

    return sorted(found, key=order)


def num_objects(runs: Sequence[RunSummary], name: str, level: int = MODERATE) -> str:
    """Return how many objects were to be found, "unknown" where no run says."""
    counts = {
        int(entry[level])
        for run in runs
        if (entry := (run.figures or {}).get(name, {}).get("num_ground_truth")) is not None
    }
    return " / ".join(str(count) for count in sorted(counts)) or "unknown"


def verdict(runs: Sequence[RunSummary]) -> list[str]:
    """Return the comparison of each start with scratch in a sentence per label fraction, whichever is better."""
    groups = groups_of(runs)
    several = len({(group.experiment, group.fraction) for group in groups}) > 1
    for name, metric in [key for key in metric_keys(runs) if key[1].startswith("3d")]:
        pairs = [pair for pair in paired_differences(groups, name, metric) if pair.before.start == "scratch"]
        if pairs:
            return [_sentence(pair, describe(name, metric), several) for pair in pairs]
    return []


def _sentence(pair: Paired, figure: str, several: bool) -> str:
    gain, num = pair.mean, len(pair.differences)
    size = f"{abs(gain):.2f} AP {'above' if gain > 0 else 'below'} scratch" if gain else "level with scratch"
    where = f"{pair.after.experiment}, {percent(pair.after.fraction)}: " if several else ""
    subject = pair.after.start if several else pair.after.start.capitalize()
    what = f"{where}{subject} is {size} ({figure}, R40, moderate)"
    if pair.interval is None:
        return f"{what}. One run each: a difference of this kind can be chance."
    low, high = pair.interval
    caution = f" {pair.caution.capitalize()}." if pair.caution else ""
    return f"{what} on average over {num} pairs, 95 % interval {low:+.2f} to {high:+.2f}.{caution}"


def describe(name: str, metric: str) -> str:
    """Return a metric in words: car, 3D, IoU 0.5."""
    kind, _, overlap = metric.partition("@")
    words = {"3d": "3D", "bev": "bird's-eye view", "bbox": "2D box", "aos": "orientation (AOS)"}.get(kind, kind)
    if not overlap:
        return f"{name}, {words}, official overlap"
    return f"{name}, {words}, IoU {overlap}" if overlap[0].isdigit() else f"{name}, {words}, {overlap} overlap"


def result_table(runs: Sequence[RunSummary]) -> str:
    """Return the headline table as HTML: moderate, R40, below it R11 with its cliff; a row for each start."""
    groups, keys = groups_of(runs), _headline_keys(runs)
    settings = list(dict.fromkeys((group.experiment, group.fraction) for group in groups))
    body = []
    for setting in settings:
        own = [group for group in groups if (group.experiment, group.fraction) == setting]
        title = html.escape(f"{setting[0]}, {percent(setting[1])}")
        body.append(f'<tr class="setting"><th colspan="{1 + len(keys)}">{title}</th></tr>')
        best = {key: _best_mean(own, key) for key in keys}
        body += [_row(group, keys, best) for group in own]
    return _figure_table("start", runs, keys, body)


def _best_mean(groups: Sequence[Group], key: tuple[str, str]) -> float | None:
    """Return the highest of several means; None where there are no two to compare: a single run wins nothing."""
    means = [figure.mean for group in groups if (figure := group.spread(*key)) and figure.std is not None]
    return max(means) if len(means) > 1 else None


def _headline_keys(runs: Sequence[RunSummary]) -> list[tuple[str, str]]:
    return [key for key in metric_keys(runs) if key[1].startswith("3d")]


def _figure_table(corner: str, runs: Sequence[RunSummary], keys: Sequence[tuple[str, str]], body: Sequence[str]) -> str:
    """Return rows under a head of classes and figures."""
    classes = list(dict.fromkeys(name for name, _ in keys))
    head = "".join(
        f'<th colspan="{sum(key[0] == name for key in keys)}">{html.escape(name)}'
        f"<small>{num_objects(runs, name)} objects</small></th>"
        for name in classes
    )
    labels = "".join(f"<th>{html.escape(describe(*key).partition(', ')[2])}</th>" for key in keys)
    return (
        '<div class="wide"><table class="results"><thead>'
        f'<tr><th rowspan="2">{corner}</th>{head}</tr><tr>{labels}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _row(group: Group, keys: Sequence[tuple[str, str]], best: dict[tuple[str, str], float | None]) -> str:
    cells = []
    for key in keys:
        figure, r11 = group.spread(*key), group.spread(*key, key="AP_R11")
        if figure is None:
            cells.append("<td>-</td>")
            continue
        is_best = figure.std is not None and figure.mean == best[key]
        text = f"<b>{figure.text}</b>" if is_best else figure.text
        bar = f'class="bar" style="--part:{figure.mean:.1f}%"'
        coarse = f"<small>R11 {r11.text}</small><small>{r11.cliff_text}</small>" if r11 else ""
        cells.append(f"<td {bar}>{text}<small>{figure.range_text}</small>{coarse}</td>")
    name = f"{html.escape(group.start)}<small>{html.escape(group.runs_text)}</small>"
    return f"<tr><th>{name}</th>{''.join(cells)}</tr>"


def paired_table(runs: Sequence[RunSummary]) -> str:
    """Return paired differences (R40, moderate) as HTML, a row for each start and fraction; empty without any pair."""
    groups, keys = groups_of(runs), _headline_keys(runs)
    rows: dict[tuple[str, float | None, str, str], dict[tuple[str, str], Paired]] = {}
    for key in keys:
        for pair in paired_differences(groups, *key):
            after = pair.after
            rows.setdefault((after.experiment, after.fraction, after.start, pair.before.start), {})[key] = pair
    body = []
    for (experiment, fraction, after, before), pairs in sorted(
        rows.items(), key=lambda row: (row[0][0], row[0][1] or 0)
    ):
        num = max(len(pair.differences) for pair in pairs.values())
        about = f"{experiment}, {percent(fraction)}; {'one pair' if num == 1 else f'{num} pairs'}"
        cells = "".join(_difference(pairs.get(key)) for key in keys)
        title = f"{html.escape(f'{after} - {before}')}<small>{html.escape(about)}</small>"
        body.append(f"<tr><th>{title}</th>{cells}</tr>")
    return _figure_table("difference", runs, keys, body) if body else ""


def _difference(pair: Paired | None) -> str:
    if pair is None:
        return "<td>-</td>"
    each = ", ".join(f"{seed}: {value:+.2f}" for seed, value in zip(pair.seeds, pair.differences, strict=True))
    interval = "no interval" if pair.interval is None else "{:+.2f} to {:+.2f}".format(*pair.interval)
    return f'<td title="by label seed: {each}">{pair.mean:+.2f}<small>{interval}</small></td>'


def details_table(runs: Sequence[RunSummary]) -> str:
    """Return every figure of every run as HTML: all metrics and difficulties, R40 and R11."""
    rows = []
    for group in groups_of(runs):
        for run in group.runs:
            for name, metric in metric_keys([run]):
                figures = [
                    spread([run], name, metric, key, level) for key in ("AP_R40", "AP_R11") for level in range(3)
                ]
                cells = "".join(f"<td>{figure.text if figure else '-'}</td>" for figure in figures)
                subset = "" if run.subset_hash is None else f"<small>labels {html.escape(run.subset_hash)}</small>"
                what = html.escape(describe(name, metric))
                start = f"{html.escape(group.start)}<small>{html.escape(percent(run.fraction))}</small>"
                seed = "-" if run.seed is None else run.seed
                rows.append(f"<tr><th>{start}</th><td>{seed}{subset}</td><td>{what}</td>{cells}</tr>")
    levels = "".join(f"<th>{level}</th>" for level in LEVELS)
    return (
        '<div class="wide"><table><thead><tr><th rowspan="2">start</th><th rowspan="2">seed</th>'
        '<th rowspan="2">figure</th><th colspan="3">AP R40</th><th colspan="3">AP R11</th></tr>'
        f"<tr>{levels}{levels}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
