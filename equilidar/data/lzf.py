"""LZF decompression: the algorithm of `DATA binary_compressed` in PCD files."""

import functools
import inspect
from collections.abc import Callable
from typing import cast

import numpy as np


def lzf_decompress(compressed: bytes, size: int) -> bytes:
    """Undo LZF compression (format of Marc Lehmann's liblzf).

    A control byte below 32 is followed by that many + 1 literal bytes. Any other holds a length in its upper three bits
    (7: a further byte is added) and the upper five bits of a distance whose lower eight follow; length + 2 bytes are
    then repeated from distance + 1 before the end of the output, overlapping it where the distance is the shorter.

    Args:
        compressed: the stream.
        size: number of bytes that must come out.

    Raises:
        ValueError: the stream is broken or holds another number of bytes.
    """
    out = np.zeros(size, dtype=np.uint8)
    written = _kernel()(np.frombuffer(compressed, dtype=np.uint8), out)
    if written != size:
        raise ValueError(f"LZF stream is broken after {abs(written)} of {size} bytes")
    return out.tobytes()


@functools.cache
def _kernel() -> Callable[..., int]:
    """Compile on first use; files of this kind are rare."""
    from numba import njit

    # Run-time shape checkers wrap functions where they are defined; numba needs the bare one.
    return cast(Callable[..., int], njit(inspect.unwrap(_decompress)))


def _decompress(source: np.ndarray, out: np.ndarray) -> int:
    """Fill `out`; return the number of bytes written, negative where the stream is broken."""
    read, written = 0, 0
    while read < len(source):
        control = int(source[read])
        read += 1
        if control < 32:
            length = control + 1
            if read + length > len(source) or written + length > len(out):
                return -written
            for i in range(length):
                out[written + i] = source[read + i]
            read += length
        else:
            length = control >> 5
            if length == 7:
                if read >= len(source):
                    return -written
                length += int(source[read])
                read += 1
            length += 2
            if read >= len(source):
                return -written
            start = written - ((control & 31) << 8) - int(source[read]) - 1
            read += 1
            if start < 0 or written + length > len(out):
                return -written
            for i in range(length):
                out[written + i] = out[start + i]
        written += length
    return written
