"""What reading files through has found, kept on disk until one of them changes."""

import logging
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equilidar.atomic_file import atomic_file
from equilidar.data.listing import content_hash

_LOG = logging.getLogger(__name__)


def cache_path(files: Iterable[Path], settings: Any, kind: str, folder: str | Path | None) -> Path:
    """Return where something that is made of files is kept.

    The name covers paths, sizes and times of change of the files, and the settings.

    Args:
        files: that it is made of.
        settings: everything else that decides what it is, as JSON can hold it.
        kind: folder of the user's cache.
        folder: instead of that folder; None for it.
    """
    stats = {path: path.stat() for path in files}
    seen = [[str(path.absolute()), stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()]
    if folder is None:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "equilidar" / kind
    return Path(folder) / f"{content_hash([seen, settings])}.npz"


def kept_arrays(cache: Path, make: Callable[[], dict[str, NDArray]]) -> dict[str, NDArray]:
    """Return the arrays that `cache` holds; where it does not exist or is damaged, make them and keep them there.

    A cache that cannot be written to is no error, only slow.
    """
    try:
        with np.load(cache, allow_pickle=False) as content:
            return dict(content)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        _LOG.warning("%s is damaged (%s) and made anew", cache, error)
    arrays = make()
    try:
        with atomic_file(cache) as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        _LOG.warning(
            "%s cannot be written (%s), its content is found anew each time; set dataset.cache_dir", cache, error
        )
    return arrays
