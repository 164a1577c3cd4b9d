"""Compare finished runs: python tools/report.py RUN [LABEL=RUN ...] [--output runs/report.html]

RUN is a run directory or a folder of them. Runs of one experiment, label fraction and start (or LABEL) are one row:
mean and deviation over them, a single run by itself. Prints the table; writes a page with curves, and beside it the
figures as text, CSV and JSON.
"""

import argparse
import sys
from pathlib import Path

from equilidar.training.quiet_pipe import quiet_pipe


@quiet_pipe()
def main() -> int:
    """Read the runs, write and print the report; exit code 2 where a run cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="[LABEL=]RUN", help="finished run directories, or folders of them")
    parser.add_argument("--output", default="runs/report.html", type=Path, help="the page (default: %(default)s)")
    parser.add_argument("--title", default="equilidar report")
    parser.add_argument("--note", action="append", default=[], help="a paragraph below the results; may be repeated")
    arguments = parser.parse_args()

    from equilidar.report.page import write_report
    from equilidar.report.run_summary import RunSummary, find_runs
    from equilidar.report.tables import text_table, write_tables

    try:
        runs = []
        for text in arguments.runs:
            label, equals, folder = text.rpartition("=")
            runs += [RunSummary.read(found, label if equals else None) for found in find_runs(Path(folder))]
        table = text_table(runs)
        path = write_report(arguments.output, runs, arguments.title, arguments.note)
        write_tables(path, runs)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table)
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
