"""SemanticKITTI: the sweeps of KITTI odometry with poses of its own; its labels are never opened."""

from pathlib import Path
from typing import Any, ClassVar

from equilidar.data.kitti_odometry import KittiOdometry

# Sequences of the official splits (Behley et al., ICCV 2019).
SPLITS = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(str(number) for number in range(11, 22)),
}


class SemanticKitti(KittiOdometry):
    """Pairs from `sequences/NN` with velodyne, poses.txt, calib.txt and times.txt, as SemanticKITTI lays them out.

    By default only the training sequences: sequence 08 is what semantic segmentation is validated on.

    Raises:
        FileNotFoundError: a folder, a sequence that is asked for, or the calibration does not exist.
        ValueError: unknown split, no pair is left, or pose rows do not reach to the last sweep.
    """

    dataset_name: ClassVar[str] = "semantickitti"

    def __init__(
        self,
        root: str | Path,
        splits: list[str] | tuple[str, ...] = ("train",),
        sequences: list[str] | tuple[str, ...] | None = None,
        **options: Any,
    ) -> None:
        """List the pairs.

        Args:
            root: folder that holds `sequences/`.
            splits: of "train", "val", "test"; those of their sequences that are there.
            sequences: names ("00"), instead of splits.
            options: gap, accumulation, poses and what may be used; see `GuardedPairs`.
        """
        if sequences is None:
            unknown = [split for split in splits if split not in SPLITS]
            if unknown or not splits:
                raise ValueError(f"dataset.splits must be of {', '.join(SPLITS)}, got {list(splits)}")
            listed = [name for split in splits for name in SPLITS[split]]
            sequences = [name for name in listed if (Path(root) / "sequences" / name).is_dir()] or listed[:1]
        super().__init__(root, sequences, **options)
