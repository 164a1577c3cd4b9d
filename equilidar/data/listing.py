"""Finding files: numeric-aware order, content hashes of lists, one-line errors for wrong paths."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_DIGITS = re.compile(r"(\d+)")
_LAST_NUMBER = re.compile(r"(\d+)(?!.*\d)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which frame_9 comes before frame_10."""
    parts = _DIGITS.split(name)
    return [(1, int(part), part) if part.isdigit() else (0, 0, part) for part in parts]


def last_number(name: str) -> int | None:
    """Return the last run of digits in `name`, the frame number or time stamp of a file; None without digits."""
    match = _LAST_NUMBER.search(name)
    return int(match.group(1)) if match else None


def require_folder(path: Path, what: str, argument: str) -> Path:
    """Return `path` if it is a folder.

    Raises:
        FileNotFoundError: it is none; the message names the argument and what does exist above it.
    """
    if path.is_dir():
        return path
    above = next(parent for parent in path.absolute().parents if parent.is_dir())
    kind = "is a file, not a folder" if path.exists() else "does not exist"
    raise FileNotFoundError(f"{what}: {path} {kind} (nearest folder that exists: {above}); set {argument}")


def point_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the point files right inside `folder`, hidden ones left out, in numeric-aware order."""
    found = [p for p in folder.iterdir() if p.suffix in suffixes and not p.name.startswith(".") and p.is_file()]
    return sorted(found, key=lambda p: natural_key(p.name))


def content_hash(value: Any) -> str:
    """Return 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_hash(keys: Iterable[str], paths: Iterable[Path]) -> str:
    """Return a hash of names and sizes: it notices other, missing or truncated files without reading them."""
    sizes = [path.stat().st_size if path.is_file() else -1 for path in paths]
    return content_hash([list(keys), sizes])
