"""Read JSON files piece by piece: those of nuScenes hold millions of records, more than memory does once parsed.

Values are parsed by the standard library's decoder, one member or record at a time; only the current piece is held.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_CHUNK = 1 << 20


def read_records(path: Path) -> Iterator[Any]:
    """Yield the elements of a file that is one array.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or no array.
    """
    with _open(path) as file:
        window = _Window(file, path)
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


def _open(path: Path) -> IO[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    return path.open(encoding="utf-8", errors="replace")


class _Window:
    """The part of a text that is being parsed."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._place = "", 0
        self._ended = False
        self._decoder = json.JSONDecoder()

    def members(self) -> Iterator[str]:
        """Yield the keys of an object; the caller takes the value after each."""
        self._expect("{", "an object")
        if self._take("}"):
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"{self._path}: {key!r} is no key of an object")
            self._expect(":", "a colon")
            yield key
            if not self._take(","):
                self._expect("}", "the end of an object")
                return

    def elements(self) -> Iterator[Any]:
        """Yield the elements of an array."""
        self._expect("[", "an array")
        if self._take("]"):
            return
        while True:
            yield self.value()
            if not self._take(","):
                self._expect("]", "the end of an array")
                return

    def value(self) -> Any:
        """Parse the value that starts here."""
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                if self._ended:
                    raise ValueError(f"{self._path} is no whole JSON file: {error.msg}") from None
            else:
                # A number at the end of the window may go on after it: with a digit, or "e-" that is cut from its own.
                rest = self._text[end : end + 3]
                if self._ended or len(rest) == 3 or rest.strip(".eE+-"):
                    self._place = end
                    return value
            self._read()

    def skip(self) -> None:
        """Pass over the value that starts here; of objects and arrays only the current piece is held."""
        following = self._next()
        if following == "{":
            for _ in self.members():
                self.skip()
        elif following == "[":
            for _ in self.elements():
                pass
        else:
            self.value()

    def _next(self) -> str:
        """Return the character after white space, "" at the end."""
        while True:
            while self._place < len(self._text):
                if not self._text[self._place].isspace():
                    return self._text[self._place]
                self._place += 1
            if self._ended:
                return ""
            self._read()

    def _take(self, wanted: str) -> bool:
        if self._next() != wanted:
            return False
        self._place += 1
        return True

    def _expect(self, wanted: str, what: str) -> None:
        if not self._take(wanted):
            got = self._next()
            raise ValueError(f"{self._path}: expected {what}, got {repr(got) if got else 'the end of the file'}")

    def _read(self) -> None:
        """Drop what is parsed and read on; as much again as is held, so that long values stay linear."""
        self._text = self._text[self._place :]
        self._place = 0
        more = self._file.read(max(_CHUNK, len(self._text)))
        self._ended = not more
        self._text += more
