"""TFRecord files: records found by offset and read one at a time, each with its checksums.

A record is a length (8 bytes, little-endian), its masked CRC-32C, a content of that length, and its masked CRC-32C.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from equilidar.data.faults import FaultySweepError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8


@dataclass(frozen=True, slots=True)
class RecordSpan:
    """Where a record is.

    Attributes:
        offset: byte at which its header begins.
        length: of its content, bytes.
        head: the first bytes of its content, unchecked.
    """

    offset: int
    length: int
    head: bytes


def list_records(path: Path, head: int = 0) -> list[RecordSpan]:
    """Walk from header to header; contents are skipped, but for their first `head` bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a length's checksum is wrong, or the file ends within a record.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    size, offset, spans = path.stat().st_size, 0, []
    if size == 0:
        raise ValueError(f"{path}: empty file; download it again")
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            content = file.read(_HEADER.size + head)
            if len(content) < _HEADER.size:
                raise ValueError(_truncated(path, len(spans), offset, size))
            length, checksum = _HEADER.unpack_from(content)
            if masked_crc(content[:8]) != checksum:
                raise ValueError(
                    f"{path}: wrong checksum of the length of record {len(spans)}, at byte {offset}: corrupt, or no "
                    "TFRecord file; download it again (and unpack it, if it is compressed)"
                )
            span = RecordSpan(offset, length, content[_HEADER.size : _HEADER.size + length])
            offset += _HEADER.size + length + _FOOTER.size
            if offset > size:
                raise ValueError(_truncated(path, len(spans), offset, size))
            spans.append(span)
    return spans


def read_record(path: Path, offset: int) -> bytes:
    """Return the content of the record whose header begins at `offset`.

    Raises:
        FaultySweepError: the file is missing or truncated, or a checksum is wrong.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise FaultySweepError(f"{path}: truncated at byte {offset}; download it again")
            length, checksum = _HEADER.unpack(header)
            if masked_crc(header[:8]) != checksum:
                raise FaultySweepError(f"{path}: wrong checksum of a length at byte {offset}; download the file again")
            content, footer = file.read(length), file.read(_FOOTER.size)
    except OSError as error:
        raise FaultySweepError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) < length or len(footer) < _FOOTER.size:
        raise FaultySweepError(f"{path}: truncated within the record at byte {offset}; download it again")
    if masked_crc(content) != _FOOTER.unpack(footer)[0]:
        raise FaultySweepError(f"{path}: wrong checksum of the record at byte {offset}; download the file again")
    return content


def masked_crc(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of `content`, rotated by 15 bits and shifted by a constant, as TFRecord has it.

    Raises:
        ImportError: google-crc32c is not installed.
    """
    crc = _crc32c().value(content)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _crc32c() -> ModuleType:
    try:
        import google_crc32c
    except ImportError as error:
        raise ImportError("TFRecord files need google-crc32c: pip install 'equilidar[logs]'") from error
    return google_crc32c


def _truncated(path: Path, number: int, end: int, size: int) -> str:
    return (
        f"{path}: truncated: record {number} should reach beyond byte {end}, the file ends at {size}; download it again"
    )
