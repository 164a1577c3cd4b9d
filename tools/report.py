"""Write one HTML page about finished runs: python tools/report.py RUN [LABEL=RUN ...] --output runs/report.html

Runs with the same label are one row of the result table: scratch=runs/a scratch=runs/b pretrained=runs/c.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Read the runs, write the page, print its path; exit code 2 where a run cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="[LABEL=]RUN", help="finished run directories")
    parser.add_argument("--output", default="runs/report.html", type=Path, help="the page (default: %(default)s)")
    parser.add_argument("--title", default="equilidar report")
    parser.add_argument("--note", action="append", default=[], help="a paragraph below the results; may be repeated")
    arguments = parser.parse_args()

    from equilidar.report.page import write_report
    from equilidar.report.run_summary import RunSummary

    try:
        runs = []
        for text in arguments.runs:
            label, equals, folder = text.rpartition("=")
            runs.append(RunSummary.read(folder, label if equals else None))
        path = write_report(arguments.output, runs, arguments.title, arguments.note)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
