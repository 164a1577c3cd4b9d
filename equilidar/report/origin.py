"""Where runs come from: code, data, packages and settings, side by side, differences marked."""

import hashlib
import html
import json
from collections.abc import Sequence
from typing import Any

from equilidar.report.run_summary import RunSummary

_LONGEST = 160
_SETTINGS = "config"
_PACKAGES = "packages"


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Return nested mappings as dotted names; lists of plain values as one text."""
    if isinstance(value, dict):
        parts = [flatten(item, f"{prefix}.{name}" if prefix else str(name)) for name, item in value.items()]
        return {name: text for part in parts for name, text in part.items()} or {prefix: "{}"}
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return flatten({str(number): item for number, item in enumerate(value, 1)}, prefix)
    return {prefix: value if isinstance(value, str) else json.dumps(value)}


def config_hash(provenance: dict[str, Any]) -> str:
    """Return twelve hex digits that tell configs apart, "-" where no config was recorded."""
    config = provenance.get(_SETTINGS)
    if config is None:
        return "-"
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def origin_html(runs: Sequence[RunSummary]) -> str:
    """Return provenance as HTML: code and data at once, packages and settings folded."""
    columns = [_facts(run) for run in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    packages = [name for name in names if f".{_PACKAGES}." in f".{name}"]
    settings = [name for name in names if name.startswith(f"{_SETTINGS}.")]
    first = [name for name in names if name not in packages and name not in settings]
    parts = [_table(runs, columns, first)]
    if packages:
        parts.append(f"<details><summary>Package versions</summary>{_table(runs, columns, packages)}</details>")
    if settings:
        hint = "Resolved settings; rows in which the runs differ are shaded"
        parts.append(f"<details><summary>{hint}</summary>{_table(runs, columns, settings)}</details>")
    return "".join(parts)


def _facts(run: RunSummary) -> dict[str, str]:
    return {"folder": str(run.folder), "config hash": config_hash(run.provenance), **flatten(run.provenance)}


def _table(runs: Sequence[RunSummary], columns: Sequence[dict[str, str]], names: Sequence[str]) -> str:
    head = "".join(
        f"<th>{html.escape(run.label)}{'' if run.seed is None else f' <small>seed {run.seed}</small>'}</th>"
        for run in runs
    )
    rows = []
    for name in names:
        values = [column.get(name, "-") for column in columns]
        shade = ' class="differs"' if len(set(values)) > 1 else ""
        cells = "".join(f"<td>{html.escape(_short(value))}</td>" for value in values)
        rows.append(f"<tr{shade}><th>{html.escape(name)}</th>{cells}</tr>")
    table = f'<table class="left"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="wide">{table}</div>'


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text):,} characters)"
