"""PLY files: the vertices alone."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equilidar.data.faults import FaultySweepError

_SCALARS = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class _Element:
    name: str
    count: int
    fields: list[tuple[str, str]] = field(default_factory=list)
    has_list: bool = False


def read_ply(path: Path) -> dict[str, NDArray]:
    """Read the vertex columns of a PLY file, ascii or binary of either byte order.

    Raises:
        FaultySweepError: no PLY header, no vertices, lists among or before them, or fewer data than it says.
    """
    content = path.read_bytes()
    encoding, elements, start = _parse_header(path, content)
    order = _BYTE_ORDERS[encoding]
    rows_before, bytes_before = 0, 0
    for element in elements:
        if element.has_list:
            raise FaultySweepError(f"{path}: PLY element {element.name!r} holds lists at or before the vertices")
        dtype = np.dtype([(name, order + kind) for name, kind in element.fields])
        if element.name == "vertex":
            break
        rows_before += element.count
        bytes_before += element.count * dtype.itemsize
    else:
        raise FaultySweepError(f"{path}: PLY file without vertices")
    if encoding == "ascii":
        return _read_ascii(path, content[start:], element, rows_before)
    start += bytes_before
    needed = element.count * dtype.itemsize
    if len(content) - start < needed:
        raise FaultySweepError(f"{path}: truncated, {len(content) - start} of {needed} bytes of vertices")
    points = np.frombuffer(content, dtype=dtype, count=element.count, offset=start)
    return {name: points[name] for name, _ in element.fields}


def _parse_header(path: Path, content: bytes) -> tuple[str, list[_Element], int]:
    stop = content.find(b"end_header")
    start = content.find(b"\n", stop) + 1
    if not content.startswith(b"ply") or stop < 0 or start == 0:
        raise FaultySweepError(f"{path}: no PLY header")
    encoding, elements = "", []
    try:
        for line in content[:stop].decode("ascii", errors="replace").splitlines():
            words = line.split()
            match words[:1]:
                case ["format"]:
                    encoding = words[1]
                case ["element"]:
                    elements.append(_Element(words[1], int(words[2])))
                case ["property"] if words[1] == "list":
                    elements[-1].has_list = True
                case ["property"]:
                    elements[-1].fields.append((words[2], _SCALARS[words[1]]))
    except (IndexError, KeyError, ValueError) as error:
        raise FaultySweepError(f"{path}: PLY header is broken ({error!r})") from error
    if encoding not in _BYTE_ORDERS:
        raise FaultySweepError(f"{path}: PLY format {encoding!r} is not one of {list(_BYTE_ORDERS)}")
    return encoding, elements, start


def _read_ascii(path: Path, body: bytes, element: _Element, rows_before: int) -> dict[str, NDArray]:
    rows = [line for line in body.splitlines() if line.strip()][rows_before : rows_before + element.count]
    width = len(element.fields)
    try:
        table = np.array(b" ".join(rows).split(), dtype=np.float64)
    except ValueError as error:
        raise FaultySweepError(f"{path}: PLY text holds something that is no number ({error})") from error
    if len(rows) != element.count or table.size != element.count * width:
        raise FaultySweepError(f"{path}: truncated, {table.size} numbers for {element.count} vertices of {width}")
    table = table.reshape(element.count, width)
    return {name: table[:, i] for i, (name, _) in enumerate(element.fields)}
