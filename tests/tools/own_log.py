"""A log as a user has it: a folder of sweeps and their poses."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_sweeps(folder: Path, sweeps: Sequence[np.ndarray], poses: Sequence[str]) -> Path:
    """Write sweeps of x, y and z with an intensity of 0, and a line of `poses.txt` for each."""
    folder.mkdir(exist_ok=True)
    for number, xyz in enumerate(sweeps):
        np.column_stack([xyz, np.zeros(len(xyz))]).astype(np.float32).tofile(folder / f"{number:03d}.bin")
    (folder / "poses.txt").write_text("\n".join(poses) + "\n")
    return folder
