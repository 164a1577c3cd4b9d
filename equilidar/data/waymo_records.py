"""Waymo records: segments, frames and their fields, read by what is asked for and no further."""

import itertools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equilidar.data.faults import FaultySweepError
from equilidar.data.file_cache import cache_path, kept_arrays
from equilidar.data.listing import require_folder
from equilidar.data.protobuf_fields import fields, keep_fields
from equilidar.data.recordings import Frame
from equilidar.data.tfrecord import RecordSpan, list_records, read_record

_LOG = logging.getLogger(__name__)

# Of dataset.proto's Frame: what was measured, and from where. Its other fields are images and labels.
CONTEXT, TIMESTAMP, POSE, LASERS = 1, 2, 3, 5
_HEAD = 8192
_VERSION = 1  # of what is kept of a file


def waymo_protobuf() -> ModuleType:
    """Return the generated module `waymo_open_dataset.dataset_pb2`.

    Raises:
        ImportError: it is not installed; the message names the command.
    """
    try:
        from waymo_open_dataset import dataset_pb2
    except ImportError as error:
        raise ImportError(
            "Waymo records need its protobuf modules: pip install 'equilidar[logs]' && "
            f"pip install --no-deps waymo-open-dataset-tf-2-12-0==1.6.7 ({error})"
        ) from error
    return dataset_pb2


def parse_message(kind: str, content: bytes) -> Any:
    """Return a message of `dataset_pb2`, "Frame" for instance.

    Raises:
        ValueError: `content` is none.
        ImportError: Waymo's protobuf modules are not installed.
    """
    message_class = getattr(waymo_protobuf(), kind)
    from google.protobuf.message import DecodeError

    try:
        return message_class.FromString(content)
    except DecodeError as error:
        raise ValueError(f"no Waymo {kind}: {error}") from error


def find_segments(root: Path, split: str | None, names: Sequence[str] | None = None) -> list[Path]:
    """Return the TFRecord files of a split, by name.

    Raises:
        FileNotFoundError: a folder does not exist, or a segment is not there.
    """
    require_folder(root, "Waymo data", "dataset.root")
    folder = root if split is None else require_folder(root / split, "Waymo data", "dataset.split")
    files = sorted((p for p in folder.rglob("*.tfrecord") if p.is_file()), key=lambda path: path.name)
    missing = [name for name in names or () if not any(name in path.name for path in files)]
    if not files or missing:
        what = f"no segment {', '.join(missing)}" if missing else "no .tfrecord files"
        raise FileNotFoundError(f"{what} in {folder} or below; set dataset.root, split or segments")
    return [path for path in files if names is None or any(name in path.name for name in names)]


def list_segments(
    files: Iterable[Path], cache_dir: str | Path | None = None
) -> tuple[list[tuple[list[Frame], NDArray[np.float64]]], dict[str, str]]:
    """Return frames and (F, 4, 4) poses of each file, and why others are left out.

    Only headers are read: names, times and poses, a few kilobytes of each record; and those only once, as long as the
    file does not change.

    Args:
        files: one segment each.
        cache_dir: keeps what is found; None for the user's cache folder.

    Raises:
        ValueError: two files hold the same segment, or no file can be used.
        ImportError: Waymo's protobuf modules are not installed.
    """
    waymo_protobuf()
    listed, left_out, seen = [], {}, {}
    for path in files:
        try:
            frames, poses = _list_frames(path, cache_dir)
        except ValueError as error:
            left_out[path.name] = str(error)
            _LOG.warning("Waymo segment left out: %s", error)
            continue
        segment = frames[0].key.rsplit("/", 1)[0]
        if segment in seen:
            raise ValueError(f"{path} and {seen[segment]} both hold segment {segment}; remove one of them")
        seen[segment] = path
        listed.append((frames, poses))
    if not listed:
        raise ValueError(f"no segment can be used: {next(iter(left_out.values()))}")
    return listed, left_out


def read_message(frame: Frame, numbers: Sequence[int]) -> Any:
    """Return the frame's message with its fields `numbers` only.

    Raises:
        FaultySweepError: the record is corrupt or truncated.
    """
    content = read_record(frame.path, frame.position)
    try:
        return parse_message("Frame", keep_fields(content, numbers))
    except ValueError as error:
        raise FaultySweepError(f"{frame.path}: no Waymo frame at byte {frame.position} ({error})") from error


def _list_frames(path: Path, cache_dir: str | Path | None) -> tuple[list[Frame], NDArray[np.float64]]:
    found = kept_arrays(cache_path([path], _VERSION, "waymo", cache_dir), lambda: _scan(path))
    segment = str(found["segment"])
    frames = [
        Frame(f"waymo/{segment}/{time}", path, time, time * 1e-6, position)
        for time, position in zip(found["times"].tolist(), found["positions"].tolist(), strict=True)
    ]
    return frames, found["poses"]


def _scan(path: Path) -> dict[str, NDArray]:
    """Return name, times in microseconds, byte offsets and (F, 4, 4) poses of a segment.

    Raises:
        ValueError: the file is truncated, corrupt between its records, or no whole segment.
    """
    segments, times, positions, poses = set(), [], [], []
    for span in list_records(path, _HEAD):
        message = _read_header(path, span)
        time, pose = message.timestamp_micros, np.array(message.pose.transform, dtype=np.float64)
        if not message.context.name or time <= 0 or pose.shape != (16,) or not np.isfinite(pose).all():
            raise ValueError(
                f"{path}: the record at byte {span.offset} lacks a Waymo frame's name, time or pose; download it again"
            )
        segments.add(message.context.name)
        times.append(time)
        positions.append(span.offset)
        poses.append(pose.reshape(4, 4))
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ValueError(f"{path}: its frames' time stamps do not rise, or one occurs twice; download it again")
    if len(segments) != 1:
        raise ValueError(f"{path}: frames of more than one segment; Waymo's files hold one each")
    return {
        "segment": np.array(segments.pop()),
        "times": np.array(times),
        "positions": np.array(positions),
        "poses": np.stack(poses),
    }


def _read_header(path: Path, span: RecordSpan) -> Any:
    """Return a message of the record's context, time and pose, which stand at its beginning."""
    wanted, kept = {CONTEXT, TIMESTAMP, POSE}, []
    try:
        for number, begin, _, end, _ in fields(span.head):
            if end > len(span.head):
                break
            if number in wanted:
                kept.append(span.head[begin:end])
                wanted.discard(number)
            if not wanted:
                break
        content = b"".join(kept)
        if wanted:
            content = keep_fields(read_record(path, span.offset), (CONTEXT, TIMESTAMP, POSE))
        return parse_message("Frame", content)
    except ValueError as error:
        raise ValueError(f"{path}: no Waymo frame at byte {span.offset} ({error}); download it again") from error
