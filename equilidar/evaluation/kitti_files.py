"""KITTI label files (15 columns) and result files (16, the last one the score): strict reading, and writing.

A row: class, truncated, occluded, alpha, 2D box x1 y1 x2 y2 (pixels), height, width, length (metres), x, y, z of the
center of the box's bottom face in the camera's frame (x right, y down, z forward), rotation_y, score.
A row without a 3D box has sizes -1 and location -1000.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

KITTI_CLASSES = ("car", "van", "truck", "pedestrian", "person_sitting", "cyclist", "tram", "misc", "dontcare")
_WRITTEN = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare")
_INDEX = {name: index for index, name in enumerate(KITTI_CLASSES)}
_LABEL_COLUMNS, _RESULT_COLUMNS = 15, 16
_SIZES, _LOCATION = slice(7, 10), slice(10, 13)


@dataclass(frozen=True, slots=True)
class KittiTable:
    """Rows of the files of F frames, concatenated, in file order.

    Attributes:
        frames: names of the frames.
        offsets: (F + 1,) which rows belong to which frame.
        kind: (N,) index into KITTI_CLASSES; the case of class names does not matter.
        values: (N, 15) the numbers of a row: truncated, occluded, alpha, x1, y1, x2, y2, height, width, length, x, y,
            z, rotation_y, score (NaN for labels).
    """

    frames: tuple[str, ...]
    offsets: Int64[np.ndarray, " F1"]
    kind: Int64[np.ndarray, " N"]
    values: Float64[np.ndarray, "N 15"]

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.frames) + 1 or self.offsets[-1] != len(self.kind):
            raise ValueError(
                f"objects: {len(self.frames)} frames and {len(self.kind)} rows do not fit offsets of "
                f"{len(self.offsets)} entries that end at {self.offsets[-1]}"
            )

    @classmethod
    def concatenate(cls, tables: "Sequence[KittiTable]") -> "KittiTable":
        """Join the frames of several tables."""
        lengths = np.concatenate([[0], *[np.diff(table.offsets) for table in tables]])
        return cls(
            tuple(frame for table in tables for frame in table.frames),
            np.cumsum(lengths, dtype=np.int64),
            np.concatenate([np.zeros(0, np.int64), *[table.kind for table in tables]]),
            np.concatenate([np.zeros((0, _RESULT_COLUMNS - 1)), *[table.values for table in tables]]),
        )

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def truncated(self) -> Float64[np.ndarray, " N"]:
        return self.values[:, 0]

    @property
    def occluded(self) -> Float64[np.ndarray, " N"]:
        return self.values[:, 1]

    @property
    def alpha(self) -> Float64[np.ndarray, " N"]:
        return self.values[:, 2]

    @property
    def image_box(self) -> Float64[np.ndarray, "N 4"]:
        return self.values[:, 3:7]

    @property
    def location(self) -> Float64[np.ndarray, "N 3"]:
        return self.values[:, 10:13]

    @property
    def score(self) -> Float64[np.ndarray, " N"]:
        return self.values[:, 14]

    def upright_boxes(self) -> Float64[np.ndarray, "N 7"]:
        """Return x, y, z (center), length, width, height, yaw with y forward and z up: the camera's z and -y."""
        height, width, length, x, y, z, rotation_y = self.values[:, 7:14].T
        return np.stack([x, z, height / 2 - y, length, width, height, -rotation_y], 1)


def read_labels(folder: Path, frames: list[str] | None = None) -> KittiTable:
    """Read the label files of a folder, all of them or those of the named frames.

    Raises:
        FileNotFoundError: the folder or a file is missing, or no label file is there.
        ValueError: a row is not in the format; the message names file, line and what is wrong.
    """
    return _read_files(folder, list_frames(folder) if frames is None else frames, _LABEL_COLUMNS)


def read_results(folder: Path, frames: list[str] | None = None) -> KittiTable:
    """Read the result files of a folder, all of them or those of the named frames; raises as `read_labels`."""
    return _read_files(folder, list_frames(folder) if frames is None else frames, _RESULT_COLUMNS)


def list_frames(folder: Path) -> list[str]:
    """Return the names of the .txt files of a folder, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or no such file in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: expected a folder of files NNNNNN.txt in KITTI format")
    frames = sorted(path.stem for path in folder.glob("*.txt"))
    if not frames:
        inner = folder / "data"
        hint = f"; did you mean {inner}?" if inner.is_dir() else ""
        raise FileNotFoundError(f"no .txt file in {folder}: expected files NNNNNN.txt in KITTI format{hint}")
    return frames


def _read_files(folder: Path, frames: list[str], columns: int) -> KittiTable:
    kinds: list[int] = []
    rows: list[list[float]] = []
    ends = [0]
    for frame in frames:
        path = folder / f"{frame}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            words = line.split()
            if words:
                kind, row = _parse_row(words, columns, path, number)
                kinds.append(kind)
                rows.append(row)
        ends.append(len(rows))
    values = np.full((len(rows), _RESULT_COLUMNS - 1), math.nan)
    values[:, : columns - 1] = np.array(rows, dtype=np.float64).reshape(len(rows), columns - 1)
    return KittiTable(tuple(frames), np.array(ends), np.array(kinds, dtype=np.int64), values)


def _parse_row(words: list[str], columns: int, path: Path, number: int) -> tuple[int, list[float]]:
    if len(words) != columns:
        what = "a label" if columns == _LABEL_COLUMNS else "a result (the last one is the score)"
        raise ValueError(f"{path}:{number}: {len(words)} columns, {what} has {columns}")
    kind = _INDEX.get(words[0].lower())
    if kind is None:
        raise ValueError(f"{path}:{number}: unknown class {words[0]!r}, known are {', '.join(_WRITTEN)}")
    try:
        row = [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError(f"{path}:{number}: {_first_bad_word(words)} is no number") from None
    if not math.isfinite(sum(row)):
        raise ValueError(f"{path}:{number}: {_first_bad_word(words)} is no finite number")
    if min(row[_SIZES]) < 0 and not (row[_SIZES] == [-1] * 3 and row[_LOCATION] == [-1000] * 3):
        raise ValueError(
            f"{path}:{number}: negative size {' '.join(words[8:11])} (an object without a 3D box has sizes -1 and "
            "location -1000)"
        )
    return kind, row


def _first_bad_word(words: list[str]) -> str:
    for column, word in enumerate(words[1:], 2):
        try:
            if math.isfinite(float(word)):
                continue
        except ValueError:
            pass
        return f"column {column}, {word!r},"
    return "the sum of the columns"


def write_files(folder: Path, objects: KittiTable) -> None:
    """Write one file per frame: results where the rows have scores, else labels; a frame without rows an empty file."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame, text in file_texts(objects).items():
        (folder / f"{frame}.txt").write_text(text)


def file_texts(objects: KittiTable) -> dict[str, str]:
    """Return the content of each frame's file."""
    texts = {}
    for frame, start, end in zip(objects.frames, objects.offsets[:-1], objects.offsets[1:], strict=True):
        rows = zip(objects.kind[start:end], objects.values[start:end], strict=True)
        texts[frame] = "".join(_format_row(int(kind), row) for kind, row in rows)
    return texts


def _format_row(kind: int, row: np.ndarray) -> str:
    middle = " ".join(f"{value:.4f}" for value in row[2:14])
    # Nine digits keep every float32 apart: rounded scores would tie.
    score = "" if math.isnan(row[14]) else f" {row[14]:.9g}"
    return f"{_WRITTEN[kind]} {row[0]:.2f} {row[1]:.0f} {middle}{score}\n"
