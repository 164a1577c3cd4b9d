"""Fields of a protobuf message by number, without parsing what is in them."""

from collections.abc import Collection, Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(message: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk a message from field to field; a message that is cut off yields the whole fields, and the cut one last.

    Yields:
        Number, where the field begins (its tag included), where its content begins, where it ends (beyond the message's
        end, if that is cut off), and its value if it is a varint, else 0.

    Raises:
        ValueError: this is no protobuf message.
    """
    place = 0
    while place < len(message):
        begin = place
        tag, place = _varint(message, place)
        number, kind, value = tag >> 3, tag & 7, 0
        start = place
        if kind == _VARINT:
            value, place = _varint(message, place)
        elif kind == _BYTES:
            length, start = _varint(message, place)
            place = start + length
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no protobuf message: wire type {kind} at byte {begin}")
        yield number, begin, start, place, value


def keep_fields(message: bytes, numbers: Collection[int]) -> bytes:
    """Return the message with its fields `numbers` only; all others are dropped unread.

    Raises:
        ValueError: this is no protobuf message, or it is cut off.
    """
    kept = []
    for number, begin, _, end, _ in fields(message):
        if end > len(message):
            raise ValueError(f"field {number} of a protobuf message is cut off")
        if number in numbers:
            kept.append(message[begin:end])
    return b"".join(kept)


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            # Cut off: the caller sees an end beyond the message's.
            return value, place + 1
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError(f"no protobuf message: a number longer than ten bytes ends at byte {place}")
