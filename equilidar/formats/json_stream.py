"""Read JSON files piece by piece: those of nuScenes hold millions of records, more than memory does once parsed.

One member or record is parsed at a time and only the current piece is held. orjson parses five times as fast as the
standard library; what it refuses and the standard library takes (NaN, Infinity, broken UTF-8) is left to the latter.
Integers of more than 64 bits become doubles.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from equilidar.compiled import compiled

_CHUNK = 1 << 20


def read_records(path: Path, longest: int | None = None) -> Iterator[Any]:
    """Yield the elements of a file that is one array.

    Args:
        path: the file.
        longest: bytes that an element may take, so that a damaged file is not read into memory as one; None: any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or no array, or an element is longer than `longest`.
    """
    with _open(path) as file:
        window = _Window(file, path, longest)
        yield from window.elements()


def read_members(path: Path, *names: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of the object that stands under one of `names` in a file that is one object.

    A key that occurs twice is yielded twice: parsed as a whole, the first one would be lost without a word.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, no object, or has no member of these names.
    """
    with _open(path) as file:
        window = _Window(file, path)
        found = False
        for key in window.members():
            if key in names:
                found = True
                for inner in window.members():
                    yield inner, window.value()
            else:
                window.skip()
        if not found:
            raise ValueError(f"{path} holds no {' or '.join(repr(name) for name in names)}")


def _open(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    return path.open("rb")


class _Window:
    """The part of a file that is being parsed."""

    def __init__(self, file: IO[bytes], path: Path, longest: int | None = None) -> None:
        self._file, self._path, self._longest = file, path, longest
        self._data, self._place = b"", 0
        self._codes = np.frombuffer(self._data, np.uint8)
        self._ended = False

    def members(self) -> Iterator[str]:
        """Yield the keys of an object; the caller takes the value after each."""
        self._expect(b"{", "an object")
        if self._take(b"}"):
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"{self._path}: {key!r} is no key of an object")
            self._expect(b":", "a colon")
            yield key
            if not self._take(b","):
                self._expect(b"}", "the end of an object")
                return

    def elements(self) -> Iterator[Any]:
        """Yield the elements of an array."""
        self._expect(b"[", "an array")
        if self._take(b"]"):
            return
        while True:
            yield self.value()
            if not self._take(b","):
                self._expect(b"]", "the end of an array")
                return

    def value(self) -> Any:
        """Parse the value that starts here."""
        self._next()
        while (end := int(_end_of_value(self._codes, self._place))) < 0 and not self._ended:
            if self._longest is not None and len(self._data) - self._place > self._longest:
                raise ValueError(f"{self._path}: a value is longer than {self._longest} bytes")
            self._read()
        text = self._data[self._place : end if end >= 0 else len(self._data)]
        self._place += len(text)
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            try:
                return json.loads(text.decode(errors="replace"))
            except json.JSONDecodeError as error:
                raise ValueError(f"{self._path} is no whole JSON file: {error.msg}") from None

    def skip(self) -> None:
        """Pass over the value that starts here; of objects and arrays only the current piece is held."""
        following = self._next()
        if following == b"{":
            for _ in self.members():
                self.skip()
        elif following == b"[":
            for _ in self.elements():
                pass
        else:
            self.value()

    def _next(self) -> bytes:
        """Return the character after white space, nothing at the end."""
        while True:
            while self._place < len(self._data):
                following = self._data[self._place : self._place + 1]
                if not following.isspace():
                    return following
                self._place += 1
            if self._ended:
                return b""
            self._read()

    def _take(self, wanted: bytes) -> bool:
        if self._next() != wanted:
            return False
        self._place += 1
        return True

    def _expect(self, wanted: bytes, what: str) -> None:
        if not self._take(wanted):
            got = self._next().decode(errors="replace")
            raise ValueError(f"{self._path}: expected {what}, got {repr(got) if got else 'the end of the file'}")

    def _read(self) -> None:
        """Drop what is parsed and read on; as much again as is held, so that long values stay linear."""
        self._data = self._data[self._place :]
        self._place = 0
        more = self._file.read(max(_CHUNK, len(self._data)))
        self._ended = not more
        self._data += more
        self._codes = np.frombuffer(self._data, np.uint8)


_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_PLAIN, _OPENING, _CLOSING, _SEPARATING, _QUOTING = range(5)
_KIND = np.full(256, _PLAIN, np.uint8)
for _kind, _codes in ((_OPENING, b"[{"), (_CLOSING, b"]}"), (_SEPARATING, b",: \t\n\r"), (_QUOTING, b'"')):
    _KIND[list(_codes)] = _kind


@compiled
def _end_of_value(codes, start):
    """Return where the JSON value ends that starts at `start`; -1 where it may go on beyond the last code."""
    depth, place = 0, start
    while place < len(codes):
        kind = _KIND[codes[place]]
        if kind != _PLAIN and depth == 0 and place > start:
            return place  # a number or a word ended
        place += 1
        if kind == _QUOTING:
            while place < len(codes) and codes[place] != _QUOTE:
                place += 2 if codes[place] == _BACKSLASH else 1
            if place >= len(codes):
                return -1
            place += 1
        elif kind == _OPENING:
            depth += 1
        elif kind == _CLOSING:
            depth -= 1
        if depth <= 0 and kind != _PLAIN:
            return place
    return -1
