"""Which sequence a labelled sweep belongs to: by its key, or by a file where keys do not tell."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from equilidar.data.excluded_drives import frame_drives


def sequence_of(key: str) -> str:
    """Return the sequence part of "dataset/sequence/frame", without the name of the data set."""
    parts = key.split("/")
    return "/".join(parts[1:-1]) if len(parts) > 2 else ""


def sequences_of(keys: Sequence[str], source: str | Path | None = None) -> dict[str, str]:
    """Return the sequence of each key.

    Args:
        keys: "dataset/sequence/frame".
        source: where keys do not tell (KITTI's detection frames are numbered over all drives): the `mapping/` folder of
            KITTI's object development kit, or a text file of "key sequence", one sweep a line; keys may be given by
            their last part.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a line has no two columns, a key is not in the file, or all keys are of one sequence.
    """
    found = {key: sequence_of(key) for key in keys} if source is None else _read(keys, Path(source))
    if len(set(found.values())) < 2:
        raise ValueError(
            f"labels.mode=sequence: all {len(keys)} sweeps are of one sequence; where keys do not tell it give "
            "labels.sequences=FILE (lines of 'key sequence') or KITTI's object devkit mapping/ folder"
        )
    return found


def _read(keys: Sequence[str], source: Path) -> dict[str, str]:
    if source.is_dir():
        names = [key.rpartition("/")[2] for key in keys]
        return dict(zip(keys, frame_drives(source, names), strict=True))
    if not source.is_file():
        raise FileNotFoundError(f"labels.sequences: no file or folder {source}")
    table: dict[str, str] = {}
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if not line.strip():
            continue
        key, *rest = line.split()
        if len(rest) != 1:
            raise ValueError(f"{source}, line {number}: {1 + len(rest)} columns, expected 'key sequence'")
        table[key] = rest[0]
    return {key: _look_up(table, key, source) for key in keys}


def _look_up(table: Mapping[str, str], key: str, source: Path) -> str:
    sequence = table.get(key, table.get(key.rpartition("/")[2]))
    if sequence is None:
        raise ValueError(f"labels.sequences: {source} has no line for {key}")
    return sequence
