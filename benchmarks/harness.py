"""Rows of the kernels' benchmark: interleaved timing of ours and a peer, compared by medians.

Absolute times drift with what else the machine does, so ours and the peer alternate and only their ratio counts.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Timed = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the row, unique.
        ours: runs our kernel once.
        peer: what it is compared with, in words ("scipy cKDTree, 2 workers"); say so if it is absent.
        run_peer: runs the peer once; None where it is absent.
        bar: the least `ratio` = peer / ours that is asked for; None for none.
        limit: milliseconds that the machine's limit allows (bytes moved over measured copy bandwidth, or multiply-adds
            over measured GEMM rate); `share_of_limit` = limit / ours.
        share_bar: the least `share_of_limit` that is asked for; None for none.
        measure: instead of timing, returns the figures of (ours, peer) in `unit`, as peak memory.
        unit: of both figures.
        rounds: how often each is run; medians are taken.
        note: what was measured (numbers of points, voxels, boxes), and what limits it where a bar is not met.
    """

    name: str
    ours: Timed | None
    peer: str
    run_peer: Timed | None = None
    bar: float | None = None
    limit: Callable[[], float] | None = None
    share_bar: float | None = None
    measure: Callable[[], tuple[float, float | None]] | None = None
    unit: str = "ms"
    rounds: int = 9
    note: str = ""


def run(row: Row, rounds: int | None = None) -> dict[str, Any]:
    """Measure one row.

    Returns:
        name, ours_ms, peer, peer_ms, ratio, bar, share_of_limit, share_bar, unit, met and note; figures of a row whose
        unit is not ms stand under the same names.
    """
    if row.measure is not None:
        ours, peer = row.measure()
    else:
        ours, peer = _interleaved(row, rounds or row.rounds)
    ratio = None if peer is None else peer / ours
    share = None if row.limit is None else row.limit() / ours
    met = None
    if row.bar is not None or row.share_bar is not None:
        met = (row.bar is None or (ratio is not None and ratio >= row.bar)) and (
            row.share_bar is None or (share is not None and share >= row.share_bar)
        )
    return {
        "name": row.name,
        "ours_ms": ours,
        "peer": row.peer,
        "peer_ms": peer,
        "ratio": ratio,
        "bar": row.bar,
        "share_of_limit": share,
        "share_bar": row.share_bar,
        "unit": row.unit,
        "met": met,
        "note": row.note,
    }


def _interleaved(row: Row, rounds: int) -> tuple[float, float | None]:
    """Return the median milliseconds of ours and of the peer; a first run of each is not counted."""
    assert row.ours is not None, f"{row.name}: neither ours nor measure"
    ours: list[float] = []
    peer: list[float] = []
    for i in range(rounds + 1):
        for function, times in ((row.ours, ours), (row.run_peer, peer)):
            if function is None:
                continue
            start = time.perf_counter()
            function()
            if i > 0:
                times.append(1000 * (time.perf_counter() - start))
    return statistics.median(ours), statistics.median(peer) if peer else None


def format_rows(results: list[dict[str, Any]]) -> str:
    """Return the table as text."""
    head = f"{'row':<38}{'ours':>11}{'peer':>11}{'ratio':>8}{'bar':>7}{'of limit':>10}  met  peer is"
    return "\n".join([head, *(_format(result) for result in results)])


def _format(result: dict[str, Any]) -> str:
    def cell(value: float | None, width: int, digits: int) -> str:
        return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"

    share = "-" if result["share_of_limit"] is None else f"{result['share_of_limit']:.0%}"
    met = {True: "yes", False: "NO", None: "-"}[result["met"]]
    figures = cell(result["ours_ms"], 11, 2) + cell(result["peer_ms"], 11, 2) + cell(result["ratio"], 8, 2)
    unit = "" if result["unit"] == "ms" else f" [{result['unit']}]"
    note = f"  ({result['note']})" if result["note"] else ""
    return (
        f"{result['name']:<38}{figures}{cell(result['bar'], 7, 2)}{share:>10}  {met:<3}  {result['peer']}{unit}{note}"
    )
