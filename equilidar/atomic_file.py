"""Files that are either whole or not there, whenever the process is killed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(path: Path | str) -> Iterator[BinaryIO]:
    """Open a binary file for writing that takes its name only when it is complete and on the disk.

    It is written beside `path` (a rename between filesystems is a copy, and a copy can be cut short) under a name of
    its own, so that processes and threads may write the same file at once; flushed to the disk, then renamed over
    `path`. Missing folders are made. On any error an older file of that name stays as it was, and nothing else is left.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Bring the rename itself to the disk; Windows cannot open folders and needs no such thing."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
