"""Whatever the pieces in which a file arrives, it reads as the standard library reads it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equilidar.formats import json_stream
from equilidar.formats.json_stream import read_members, read_records

# Integers of more than 64 bits become doubles; no format here has any.
INTEGERS = st.integers(-(2**63), 2**64 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
SHARED_FOLDER = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@given(records=st.lists(VALUES, max_size=6), chunk=st.integers(1, 40), indent=st.sampled_from([None, 2]))
@SHARED_FOLDER
def test_records(tmp_path: Path, records: list[Any], chunk: int, indent: int | None) -> None:
    path = tmp_path / "records.json"
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=False), encoding="utf-8", errors="replace")
    expected = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert list(read_records(path)) == expected


@given(before=VALUES, members=st.dictionaries(st.text(), VALUES, max_size=5), after=VALUES, chunk=st.integers(1, 40))
@SHARED_FOLDER
def test_members_of_one_name(tmp_path: Path, before: Any, members: dict[str, Any], after: Any, chunk: int) -> None:
    path = tmp_path / "members.json"
    path.write_text(json.dumps({"meta": before, "results": members, "rest": after}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        assert dict(read_members(path, "pred", "results")) == members


def test_a_key_that_occurs_twice_is_yielded_twice(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text('{"results": {"a": [1], "a": [2]}}')
    assert list(read_members(path, "results")) == [("a", [1]), ("a", [2])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected an object, got the end of the file"),
        ("[]", "expected an object"),
        ('{"meta": {}}', "holds no 'results'"),
        ('{"results": []}', "expected an object"),
        ('{"results": {"a": [1, 2', "is no whole JSON file"),
        ('{"results": {"a" 1}}', "expected a colon"),
        ('{"results": {1: 2}}', "1 is no key"),
        ('{"results": {"a": 1 "b": 2}}', "expected the end of an object"),
    ],
)
def test_a_file_that_is_no_such_json(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_members(path, "results"))


def test_what_only_the_standard_library_takes(tmp_path: Path) -> None:
    path = tmp_path / "loose.json"
    path.write_bytes(b'[[NaN, -Infinity, 1e400], "\\ud800", "\xff", NaN]')
    numbers, surrogate, broken, last = read_records(path)
    assert [repr(number) for number in (*numbers, last)] == ["nan", "-inf", "inf", "nan"]
    assert (surrogate, broken) == ("\ud800", "\ufffd")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        list(read_records(tmp_path / "none.json"))
