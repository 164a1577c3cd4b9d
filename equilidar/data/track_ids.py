"""Numbers for objects that a data set names by text. Pair readers may not import this module."""

import hashlib


def track_number(name: str) -> int:
    """Return a number in 0..2^63 - 1 for an object's name; the same name gives the same one everywhere, for ever."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
