"""Which recordings hold frames of KITTI's detection validation split, and so are kept out of pretraining.

Pretraining on a drive that holds validation frames lets the network see the very sweeps on which it is later measured.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equilidar.data.kitti_drives import DETECTION_FRAMES, TRAINING_DRIVES, VALIDATION_DRIVES, drive_of
from equilidar.data.listing import content_hash

_LOG = logging.getLogger(__name__)


def read_devkit_mapping(folder: Path, validation_list: Path) -> frozenset[str]:
    """Return the drives that hold frames of a detection split.

    Args:
        folder: `mapping/` of the object development kit; see `frame_drives`.
        validation_list: frame numbers, one a line (ImageSets/val.txt).

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: the files do not fit one another.
    """
    if not validation_list.is_file():
        raise FileNotFoundError(f"no {validation_list}: needed to tell which drives hold validation frames")
    return frozenset(frame_drives(folder, validation_list.read_text().split()))


def frame_drives(folder: Path, frames: Sequence[str]) -> list[str]:
    """Return the raw drive of each detection frame, from the object development kit's `mapping/` folder.

    `train_rand.txt` is one comma-separated line: entry i is the 1-based line of `train_mapping.txt` for detection frame
    i; that line is "date drive frame".

    Args:
        folder: holds both files.
        frames: numbers of training frames.

    Raises:
        FileNotFoundError: one of the files does not exist.
        ValueError: the files do not fit one another, or do not know a frame.
    """
    mapping, rand = folder / "train_mapping.txt", folder / "train_rand.txt"
    for path in (mapping, rand):
        if not path.is_file():
            raise FileNotFoundError(f"no {path}: needed to tell which drive a detection frame is from")
    lines = mapping.read_text().splitlines()
    order = [int(entry) for entry in rand.read_text().split(",") if entry.strip()]
    drives: list[str] = []
    for frame in frames:
        try:
            drive = drive_of(lines[order[int(frame)] - 1])
        except (IndexError, ValueError) as error:
            raise ValueError(f"{folder}: no entry for frame {frame} ({error})") from error
        if drive is None:
            raise ValueError(f"{mapping}: line {order[int(frame)]} names no drive")
        drives.append(drive)
    return drives


@dataclass(frozen=True)
class DriveChoice:
    """Which sequences pretraining may use.

    Attributes:
        used: recording by sequence (None where it is not known).
        left_out: the reason by sequence.
        allow: whether the user allowed every drive.
    """

    used: dict[str, str | None]
    left_out: dict[str, str]
    allow: bool

    def provenance(self) -> dict[str, Any]:
        """Return the list and its hash."""
        lists = {"used": self.used, "left_out": self.left_out}
        return {"allow_validation_drives": self.allow, **lists, "drive_list_hash": content_hash(lists)}


@dataclass(frozen=True)
class ValidationGuard:
    """Leaves out of pretraining what holds, or may hold, validation frames.

    A recording without any labelled detection frame is free (`kitti_drives.DETECTION_FRAMES`): so are all odometry
    sequences and KITTI-360, and so are the drives that are known to be of the training split as a whole. Of the other
    drives with detection frames only the development kit's mapping tells which split they are of; without it they are
    left out, for silence is no proof.

    Attributes:
        allow: use every drive; the run's provenance says so.
        devkit_mapping: `mapping/` folder of the object development kit: with it every drive is known.
        validation_list: ImageSets/val.txt, needed with it.

    Raises:
        ValueError: one of mapping and list is given without the other.
    """

    allow: bool = False
    devkit_mapping: str | Path | None = None
    validation_list: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.devkit_mapping is None) != (self.validation_list is None):
            raise ValueError("dataset.devkit_mapping and dataset.validation_list are only of use together")

    def choose(self, drives: dict[str, str | None]) -> DriveChoice:
        """Tell which sequences to use and which to leave out; the latter are logged.

        Args:
            drives: raw drive by sequence, None where it is not known.

        Raises:
            FileNotFoundError: a file of the mapping does not exist.
            ValueError: every sequence would be left out.
        """
        if self.allow:
            return DriveChoice(dict(drives), {}, True)
        holding = None
        if self.devkit_mapping is not None and self.validation_list is not None:
            holding = read_devkit_mapping(Path(self.devkit_mapping), Path(self.validation_list))
        left_out = {sequence: reason for sequence, drive in drives.items() if (reason := _reason(drive, holding))}
        if drives and len(left_out) == len(drives):
            listed = "; ".join(f"{sequence}: {reason}" for sequence, reason in list(left_out.items())[:3])
            raise ValueError(
                f"all {len(drives)} sequences hold or may hold frames of KITTI's detection validation split "
                f"({listed}); set dataset.devkit_mapping and dataset.validation_list to know, or "
                "dataset.allow_validation_drives=true"
            )
        for sequence, reason in left_out.items():
            _LOG.warning("%s is left out of pretraining: %s", sequence, reason)
        return DriveChoice({name: drive for name, drive in drives.items() if name not in left_out}, left_out, False)


def _reason(drive: str | None, holding: frozenset[str] | None) -> str | None:
    """Tell why a recording is left out.

    Args:
        drive: the recording.
        holding: drives that hold validation frames; None where only the published facts are known.
    """
    if drive is None:
        return "its raw drive is not known"
    if holding is not None:
        return f"{drive} holds validation frames" if drive in holding else None
    if drive in TRAINING_DRIVES or drive not in DETECTION_FRAMES:
        return None
    if drive in VALIDATION_DRIVES:
        return f"{drive} holds {DETECTION_FRAMES[drive]} validation frames"
    return f"{drive} holds {DETECTION_FRAMES[drive]} detection frames; whether of the validation split is not known"
