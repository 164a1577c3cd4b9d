"""Where flow is computed, and where it is kept by default."""

from pathlib import Path


def beside(root: str | None, runs: str) -> Path:
    """Return the folder in which a dataset's `flow_cache` lies by default.

    Args:
        root: of the dataset: its folder, or the file that it is; None for one that is on no disk (the simulator).
        runs: root of all run directories, which serves then.
    """
    if root is None:
        return Path(runs)
    return Path(root).parent if Path(root).is_file() else Path(root)
