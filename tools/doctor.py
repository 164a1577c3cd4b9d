"""Say what is installed and usable here: python tools/doctor.py [DATASET=FOLDER ...]."""

import argparse
import sys
from pathlib import Path

from equilidar.doctor import examine, format_table, is_healthy
from equilidar.training.quiet_pipe import quiet_pipe


@quiet_pipe()
def main() -> int:
    """Print the findings; the exit code is 1 where something needed is missing or broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "datasets", nargs="*", metavar="DATASET=FOLDER", help="dataset folders to try, as kitti_object=/data/kitti"
    )
    arguments = parser.parse_args()
    datasets: dict[str, Path] = {}
    for text in arguments.datasets:
        name, equals, folder = text.partition("=")
        if not equals or not folder:
            parser.error(f"expected DATASET=FOLDER, got {text!r}")
        datasets[name] = Path(folder)
    findings = examine(datasets)
    print(format_table(findings))
    return 0 if is_healthy(findings) else 1


if __name__ == "__main__":
    sys.exit(main())
