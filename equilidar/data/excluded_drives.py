"""Which recordings hold frames of KITTI's detection validation split, and so are kept out of pretraining.

KITTI's detection frames were drawn from its raw drives, and its odometry sequences are raw drives as well. Pretraining
on a drive that holds validation frames lets the network see the very sweeps on which it is later measured.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DRIVE = re.compile(r"(\d{4}_\d\d_\d\d_drive_\d{4})")

# Odometry sequence -> raw drive, from the readme of the KITTI odometry development kit ("Mapping to Raw Data"). For the
# test sequences 11 to 21 no mapping is published.
ODOMETRY_DRIVES = {
    "00": "2011_10_03_drive_0027",
    "01": "2011_10_03_drive_0042",
    "02": "2011_10_03_drive_0034",
    "03": "2011_09_26_drive_0067",
    "04": "2011_09_30_drive_0016",
    "05": "2011_09_30_drive_0018",
    "06": "2011_09_30_drive_0020",
    "07": "2011_09_30_drive_0027",
    "08": "2011_09_30_drive_0028",
    "09": "2011_09_30_drive_0033",
    "10": "2011_09_30_drive_0034",
}

# Drives that are known to hold frames of the 3769-frame validation split, with the evidence (mapping of the object
# development kit: raw frames 0000000007 and 0000000014 of this drive are detection frames 001497 and 004587).
VALIDATION_DRIVES = {"2011_09_26_drive_0052": "detection frames 001497 and 004587"}


def drive_of(name: str) -> str | None:
    """Return "2011_09_26_drive_0052" of a folder name like "2011_09_26_drive_0052_sync"; None if it is none."""
    match = _DRIVE.search(name)
    return match.group(1) if match else None


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
class ValidationGuard:
    """Leaves out of pretraining what holds, or may hold, validation frames.

    Without the development kit's mapping only few drives are known, and a drive of which nothing is known counts as one
    that may hold validation frames: silence is no proof.

    Attributes:
        allow: use every drive; the run's provenance says so.
        devkit_mapping: `mapping/` folder of the object development kit: with it every drive is known.
        validation_list: ImageSets/val.txt, needed with it.

    Raises:
        ValueError: one of mapping and list is given without the other.
    """

    allow: bool = False
    devkit_mapping: Path | None = None
    validation_list: Path | None = None

    def __post_init__(self) -> None:
        if (self.devkit_mapping is None) != (self.validation_list is None):
            raise ValueError("dataset.devkit_mapping and dataset.validation_list are only of use together")

    def left_out(self, drives: dict[str, str | None]) -> dict[str, str]:
        """Tell which sequences to leave out, and why.

        Args:
            drives: raw drive by sequence, None where it is not known.

        Returns:
            The reason by sequence.

        Raises:
            ValueError: every sequence would be left out.
        """
        if self.allow:
            return {}
        reasons = {sequence: reason for sequence, drive in drives.items() if (reason := self._reason(drive))}
        if drives and len(reasons) == len(drives):
            listed = "; ".join(f"{sequence}: {reason}" for sequence, reason in list(reasons.items())[:3])
            raise ValueError(
                f"all {len(drives)} sequences hold or may hold frames of KITTI's detection validation split "
                f"({listed}); set dataset.devkit_mapping and dataset.validation_list to know, or "
                "dataset.allow_validation_drives=true"
            )
        return reasons

    def _reason(self, drive: str | None) -> str | None:
        if drive is None:
            return "its raw drive is not known"
        if self.devkit_mapping is not None and self.validation_list is not None:
            holding = read_devkit_mapping(self.devkit_mapping, self.validation_list)
            return f"{drive} holds validation frames" if drive in holding else None
        if drive in VALIDATION_DRIVES:
            return f"{drive} holds {VALIDATION_DRIVES[drive]}"
        return f"whether {drive} holds validation frames is not known"
