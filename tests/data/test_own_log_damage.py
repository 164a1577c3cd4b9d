"""Own logs that are damaged, change or are not there: what can be used is, and the rest says so in one line."""

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from equilidar.data.faults import FaultySweepError
from equilidar.data.own_log import LogPairs
from tests.data.fake_logs import KINDS, START, STEP, driven, rewritten_by_its_own_library, velodyne_like, write_log
from tests.data.fake_sequence import recorded_sweeps

NUM = 4


def test_an_empty_or_torn_sweep_is_a_fault_of_its_pairs_alone(tmp_path: Path):
    contents = driven(NUM)
    torn = velodyne_like(recorded_sweeps(NUM)[1].xyz, recorded_sweeps(NUM)[1].intensity)
    torn.row_padding = -24
    contents.clouds["/points"][1] = (START + STEP, torn)
    data = LogPairs(write_log(tmp_path / "drive", contents, "bag"), cache_dir=tmp_path / "cache")
    with pytest.raises(FaultySweepError, match=r"drive\.bag, /points at 1700000000\.350 s: truncated"):
        data[0]
    assert len(data[2].source.xyz)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_as_a_whole(tmp_path: Path, kind: str):
    path = write_log(tmp_path / "drive", driven(NUM), kind)
    file = path if kind == "bag" else next(p for p in path.iterdir() if p.suffix in (".mcap", ".db3"))
    content = file.read_bytes()
    damaged = {"half": content[: len(content) // 2], "nothing": b"", "text": b"not a log" * 100}
    for name, broken in damaged.items():
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=rf"{path.name}: (cannot be read as a log, try `|no PointCloud2)") as error:
            LogPairs(path, cache_dir=tmp_path / "cache" / name)
        assert "\n" not in str(error.value)
        assert not list((tmp_path / "cache" / name).glob("*")), "a half-read index was kept"


@pytest.mark.parametrize("kind", ["bag", "mcap"])
def test_damage_inside_is_seen_where_the_format_has_checksums(tmp_path: Path, kind: str):
    """A compressed bag, and an MCAP file of the format's own writer: nothing of either is used."""
    path = write_log(tmp_path / "drive", driven(NUM), kind, compressed=True)
    if kind == "mcap":
        path = rewritten_by_its_own_library(path / "drive.mcap", tmp_path / "plain.mcap")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path.name}: cannot be read as a log, try `"):
        LogPairs(path, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_damage_after_indexing_is_a_fault(tmp_path: Path):
    path = rewritten_by_its_own_library(write_log(tmp_path / "drive", driven(NUM)) / "drive.mcap", tmp_path / "a.mcap")
    data = LogPairs(path, cache_dir=tmp_path / "cache")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(FaultySweepError, match=r"a\.mcap: cannot be read as a log"):
        data[0]


def test_a_log_that_changed_is_read_anew(tmp_path: Path):
    path = write_log(tmp_path / "drive", driven(2), "bag")
    assert len(LogPairs(path, cache_dir=tmp_path / "cache")) == 1
    path.unlink()
    write_log(tmp_path / "drive", driven(3), "bag")
    assert len(LogPairs(path, cache_dir=tmp_path / "cache")) == 2


@pytest.mark.parametrize("kind", ["bag", "sqlite3"])
def test_forked_workers_do_not_share_the_open_file(tmp_path: Path, kind: str):
    data = LogPairs(write_log(tmp_path / "drive", driven(8), kind), cache_dir=tmp_path / "cache")
    expected = [data[i].source.xyz for i in range(len(data))]  # the log is open in this process now
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert all(torch.equal(pair.source.xyz, xyz) for pair, xyz in zip(loader, expected, strict=True))


def test_missing_logs(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"dataset\.root"):
        LogPairs(tmp_path / "nowhere.bag")
    with pytest.raises(FileNotFoundError, match=r"no ROS bag or MCAP file \(\.bag, \.mcap, \.db3\)"):
        LogPairs(tmp_path)
    with pytest.raises(ValueError, match=r"dataset\.time_unit must be one of auto"):
        LogPairs(tmp_path, time_unit="minutes")
