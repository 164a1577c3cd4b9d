"""ROS PointCloud2 messages: any order, type and padding of fields, either byte order."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from equilidar.data.faults import FaultySweepError

TimeUnit = Literal["auto", "s", "ms", "us", "ns"]
TIME_UNITS: tuple[str, ...] = get_args(TimeUnit)

# sensor_msgs/PointField: INT8 = 1 ... FLOAT64 = 8.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# Times since 1970 in these units are at least so large; seconds are told by their size only after scaling.
_EPOCH_UNITS: tuple[tuple[float, TimeUnit], ...] = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"))
_EPOCH = 1e8
_LONGEST_SWEEP = 10.0  # seconds


def cloud_columns(message: Any, source: str) -> dict[str, NDArray]:
    """Return the fields of a PointCloud2 message, one value a point; those of more than one are left out.

    Args:
        message: what has the attributes of sensor_msgs/PointCloud2.
        source: where it is from, for errors.

    Raises:
        FaultySweepError: the fields do not fit into a point, or the points not into the data.
    """
    order = ">" if message.is_bigendian else "<"
    names, formats, offsets = [], [], []
    for field in message.fields:
        if field.count > 1 or field.name in names or not field.name:
            continue
        kind = _TYPES.get(field.datatype)
        if kind is None or field.offset + np.dtype(kind).itemsize > message.point_step:
            raise FaultySweepError(
                f"{source}: field {field.name!r} (datatype {field.datatype}, offset {field.offset}) does not fit into "
                f"points of {message.point_step} bytes"
            )
        names.append(field.name)
        formats.append(order + kind)
        offsets.append(field.offset)
    if not names:
        raise FaultySweepError(f"{source}: a point cloud without fields")
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": message.point_step})
    table = _rows(message, source).view(dtype)
    return {name: table[name].reshape(-1) for name in names}


def _rows(message: Any, source: str) -> NDArray[np.uint8]:
    """Return (height, width * point_step) bytes; rows may be padded."""
    width = message.width * message.point_step
    # Some drivers leave row_step at zero.
    step = max(message.row_step, width) if message.height > 1 else width
    data = np.frombuffer(message.data, dtype=np.uint8)
    needed = step * (message.height - 1) + width if message.height else 0
    if len(data) < needed:
        raise FaultySweepError(
            f"{source}: truncated, {len(data)} of {needed} bytes for {message.height} x {message.width} points"
        )
    if needed == 0:
        return np.zeros((0, message.point_step), dtype=np.uint8)
    if message.height == 1 or step == width:
        return np.ascontiguousarray(data[: width * message.height]).reshape(message.height, width)
    padded = np.zeros(step * message.height, dtype=np.uint8)
    padded[:needed] = data[:needed]
    return np.ascontiguousarray(padded.reshape(message.height, step)[:, :width])


def is_return(columns: Mapping[str, NDArray]) -> NDArray[np.bool_]:
    """Tell which points are returns.

    Drivers mark a missing one by coordinates that are not finite (whatever `is_dense` says) or by the sensor's own
    origin, 0, 0, 0.
    """
    xyz = np.stack([np.asarray(columns[axis], dtype=np.float64) for axis in "xyz"], 1)
    return np.isfinite(xyz).all(1) & (xyz != 0).any(1)


def seconds_after(times: NDArray, stamp_ns: int, source: str, unit: TimeUnit = "auto") -> NDArray[np.float64]:
    """Return each point's time in seconds after the sweep's stamp.

    Args:
        times: a field of the cloud: a time within the sweep, or one since 1970.
        stamp_ns: the message's stamp, nanoseconds.
        source: where it is from, for errors.
        unit: of the field. "auto": numbers as large as a time since 1970 tell it themselves; otherwise whole numbers
            are nanoseconds (Ouster's `t`, Livox's `offset_time`), all others seconds (Velodyne's `time`).

    Raises:
        ValueError: that gives times which are no sweep's.
    """
    if len(times) == 0:
        return np.zeros(0)
    whole = times.dtype.kind in "iu"
    largest = float(np.abs(times.astype(np.float64)).max())
    if unit == "auto":
        unit = "ns" if whole else "s"
        for least, name in _EPOCH_UNITS:
            if largest >= least:
                unit = name
                break
    scale = _SECONDS[unit]
    if largest * scale < _EPOCH:
        seconds = times.astype(np.float64) * scale
    elif whole and unit == "ns":
        seconds = (times.astype(np.int64) - stamp_ns).astype(np.float64) * 1e-9
    else:
        seconds = times.astype(np.float64) * scale - stamp_ns * 1e-9
    if not np.abs(seconds).max() <= _LONGEST_SWEEP:
        raise ValueError(
            f"{source}: point times reach {np.abs(seconds).max():.3g} s from the sweep's stamp if they are in {unit}; "
            f"set dataset.time_unit to one of {', '.join(TIME_UNITS)}"
        )
    return seconds
