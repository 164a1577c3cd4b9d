"""Arrays are found once for files that do not change, and a cache that fails costs time alone."""

import logging
from pathlib import Path

import numpy as np
import pytest

from equilidar.data.file_cache import cache_path, kept_arrays


class Counted:
    """Makes arrays, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.times += 1
        return {"numbers": np.arange(3), "name": np.array("seg")}


def test_made_once_and_anew_where_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    make, cache = Counted(), tmp_path / "deep" / "x.npz"
    for _ in range(2):
        found = kept_arrays(cache, make)
        assert found["numbers"].tolist() == [0, 1, 2] and str(found["name"]) == "seg"
    assert make.times == 1 and not caplog.records
    for content in (b"", b"no archive", cache.read_bytes()[:100]):
        cache.write_bytes(content)
        assert kept_arrays(cache, make)["numbers"].tolist() == [0, 1, 2]
    assert make.times == 4 and "is damaged" in caplog.text
    kept_arrays(cache, make)
    assert make.times == 4


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").touch()
    make = Counted()
    with caplog.at_level(logging.WARNING):
        assert kept_arrays(tmp_path / "file" / "x.npz", make)["numbers"].tolist() == [0, 1, 2]
    assert make.times == 1 and "set dataset.cache_dir" in caplog.text


def test_the_name_follows_files_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "data.bin"
    file.write_bytes(b"12")
    first = cache_path([file], [1], "kind", None)
    assert first == cache_path([file], [1], "kind", None)
    assert first.name != cache_path([file], [2], "kind", None).name
    assert cache_path([file], [1], "kind", tmp_path).parent == tmp_path
    file.write_bytes(b"123")
    assert first.name != cache_path([file], [1], "kind", None).name
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_path([file], [1], "kind", None).parent == tmp_path / "equilidar" / "kind"
