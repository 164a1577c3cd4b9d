"""JSON files that are whole or not there."""

import json
from pathlib import Path
from typing import Any

from equilidar.atomic_file import atomic_file


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())
