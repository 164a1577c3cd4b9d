"""Cases among the oracles, found by folder and file pattern, and the largest deviation of figures from them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest


def cases(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a pattern; skip where there are none."""
    found = sorted(folder.glob(pattern))
    if not found:
        pytest.skip(f"no {pattern} in {folder}")
    return found


def sibling(path: Path, suffix: str) -> Path:
    """Return NAME.`suffix` of a file NAME.expected.json."""
    return path.with_name(path.name.removesuffix("expected.json") + suffix)


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def deviation(got: Any, expected: Any, where: str = "") -> float:
    """Return the greatest difference of numbers; whatever else is expected must be equal."""
    if isinstance(expected, dict):
        assert isinstance(got, dict) and got.keys() >= expected.keys(), f"{where}: {expected.keys() - got.keys()} lacks"
        return max((deviation(got[key], value, f"{where}/{key}") for key, value in expected.items()), default=0.0)
    if isinstance(expected, list):
        assert isinstance(got, list) and len(got) == len(expected), where
        return max(
            (deviation(*pair, f"{where}[{i}]") for i, pair in enumerate(zip(got, expected, strict=True))), default=0.0
        )
    if isinstance(expected, float | int) and not isinstance(expected, bool):
        assert isinstance(got, float | int) and not math.isnan(got), f"{where}: {got}, expected {expected}"
        return abs(got - expected)
    assert got == expected, where
    return 0.0
