"""From nothing to a report: pretrain, finetune from scratch and pretrained on the same labels, evaluate.

python tools/quickstart.py [--folder runs/quickstart] [--fresh] [OVERRIDE ...]
"""

import argparse
import sys
from pathlib import Path

from equilidar.training.quiet_pipe import quiet_pipe


@quiet_pipe()
def main() -> int:
    """Run the quickstart; exit code 1 where a stage failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/quickstart"), help="default: %(default)s")
    parser.add_argument("--fresh", action="store_true", help="run finished stages again")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="for every stage, as trainer.max_epochs=1")
    arguments = parser.parse_args()

    from equilidar.quickstart import run

    try:
        run(arguments.folder, fresh=arguments.fresh, overrides=tuple(arguments.overrides))
    except (RuntimeError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
