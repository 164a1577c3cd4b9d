"""PCD files (Point Cloud Library), version 0.7 and the older ones alike."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equilidar.data.faults import FaultySweepError
from equilidar.data.lzf import lzf_decompress

_KINDS = {"F": "f", "I": "i", "U": "u"}


def read_pcd(path: Path) -> dict[str, NDArray]:
    """Read the columns of a PCD file: `DATA ascii`, `binary` or `binary_compressed`, fields of any type and order.

    Fields of more than one value (COUNT > 1) are left out. The viewpoint is not applied.

    Raises:
        FaultySweepError: the header is no PCD header, or the data are not as long as it says.
    """
    content = path.read_bytes()
    header, body = _split_header(path, content)
    try:
        dtype, num_points = _point_dtype(header)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise FaultySweepError(f"{path}: PCD header is broken ({error})") from error
    encoding = header["DATA"][0] if header["DATA"] else ""
    if encoding == "ascii":
        return _read_ascii(path, body, dtype, num_points)
    if encoding == "binary":
        return _read_binary(path, body, dtype, num_points)
    if encoding == "binary_compressed":
        return _read_compressed(path, body, dtype, num_points)
    raise FaultySweepError(f"{path}: PCD data encoding {encoding!r} is not ascii, binary or binary_compressed")


def _split_header(path: Path, content: bytes) -> tuple[dict[str, list[str]], bytes]:
    header: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in header:
        stop = content.find(b"\n", start)
        if stop < 0:
            raise FaultySweepError(f"{path}: no PCD header (no DATA line)")
        words = content[start:stop].decode("ascii", errors="replace").split()
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
        start = stop + 1
    return header, content[start:]


def _point_dtype(header: dict[str, list[str]]) -> tuple[np.dtype, int]:
    names = header.get("FIELDS") or header["COLUMNS"]
    counts = [int(count) for count in header.get("COUNT", ["1"] * len(names))]
    fields = []
    for i, (name, size, kind, count) in enumerate(zip(names, header["SIZE"], header["TYPE"], counts, strict=True)):
        # Padding fields share the name "_", which a dtype does not allow.
        unique = f"_{i}" if name == "_" else name
        scalar = f"<{_KINDS[kind]}{int(size)}"
        fields.append((unique, scalar) if count == 1 else (unique, scalar, (count,)))
    num_points = int(header["POINTS"][0]) if "POINTS" in header else int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    if num_points < 0:
        raise ValueError(f"POINTS {num_points}")
    return np.dtype(fields), num_points


def _scalar_columns(points: NDArray) -> dict[str, NDArray]:
    names = points.dtype.names or ()
    return {name: points[name] for name in names if points[name].ndim == 1 and not name.startswith("_")}


def _read_ascii(path: Path, body: bytes, dtype: np.dtype, num_points: int) -> dict[str, NDArray]:
    widths = [int(np.prod(dtype[name].shape)) for name in dtype.names or ()]
    try:
        table = np.array(body.split(), dtype=np.float64)
    except ValueError as error:
        raise FaultySweepError(f"{path}: PCD text holds something that is no number ({error})") from error
    if table.size != num_points * sum(widths):
        raise FaultySweepError(f"{path}: {table.size} numbers for {num_points} points of {sum(widths)} values")
    table = table.reshape(num_points, sum(widths))
    starts = np.cumsum([0, *widths[:-1]])
    columns = zip(dtype.names or (), starts, widths, strict=True)
    return {name: table[:, start] for name, start, width in columns if width == 1 and not name.startswith("_")}


def _read_binary(path: Path, body: bytes, dtype: np.dtype, num_points: int) -> dict[str, NDArray]:
    needed = num_points * dtype.itemsize
    if len(body) < needed:
        raise FaultySweepError(f"{path}: truncated, {len(body)} of {needed} bytes for {num_points} points")
    return _scalar_columns(np.frombuffer(body, dtype=dtype, count=num_points))


def _read_compressed(path: Path, body: bytes, dtype: np.dtype, num_points: int) -> dict[str, NDArray]:
    """Inflate; inside, each field's values stand together."""
    compressed, size = (int(n) for n in np.frombuffer(body[:8], dtype="<u4")) if len(body) >= 8 else (1, 0)
    if len(body) - 8 < compressed or size != num_points * dtype.itemsize:
        raise FaultySweepError(f"{path}: truncated, or its sizes do not fit {num_points} points")
    try:
        data = lzf_decompress(body[8 : 8 + compressed], size)
    except ValueError as error:
        raise FaultySweepError(f"{path}: {error}") from error
    columns, start = {}, 0
    for name in dtype.names or ():
        field = dtype[name]
        if not field.shape and not name.startswith("_"):
            columns[name] = np.frombuffer(data, dtype=field, count=num_points, offset=start)
        start += num_points * field.itemsize
    return columns
