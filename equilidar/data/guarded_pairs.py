"""Pairs of KITTI's recordings, without those that hold frames of its detection validation split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from equilidar.data.ego_motion import EgoMotion
from equilidar.data.excluded_drives import ValidationGuard
from equilidar.data.recordings import PointFileReader, RecordedPairs, Run


class GuardedPairs(RecordedPairs):
    """Pairs of consecutive sweeps of the sequences that `ValidationGuard` lets pass.

    Attributes:
        choice: which sequences are used, and why others are not: those that hold or may hold validation frames.

    Raises:
        FileNotFoundError: a file of the mapping does not exist.
        ValueError: no pair is left, or settings do not go together.
    """

    def __init__(
        self,
        name: str,
        drives: dict[str, str | None],
        runs: Callable[[str], list[Run]],
        *,
        gap: int = 1,
        allow_validation_drives: bool = False,
        devkit_mapping: str | Path | None = None,
        validation_list: str | Path | None = None,
        cache_dir: str | Path | None = None,
        accumulate: int = 1,
    ) -> None:
        """List the pairs.

        Args:
            name: of the data set.
            drives: raw drive by sequence, None where it is not known.
            runs: of a sequence; called for those that are used.
            gap: frames from source to target.
            allow_validation_drives: see `ValidationGuard`.
            devkit_mapping: see `ValidationGuard`.
            validation_list: see `ValidationGuard`.
            cache_dir: for estimated poses; see `EgoMotion`.
            accumulate: see `RecordedPairs`.
        """
        self.choice = ValidationGuard(allow_validation_drives, devkit_mapping, validation_list).choose(drives)
        used = [run for sequence in self.choice.used for run in runs(sequence)]
        super().__init__(name, used, PointFileReader(), gap, EgoMotion(cache_dir), accumulate=accumulate)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return {**super().provenance(), **self.choice.provenance()}
