"""Interrupted, faulty, damaged and foreign stores are told apart; nothing is done twice or half."""

import json
from pathlib import Path

import pytest

from equilidar.data.faults import FaultBudget, TooManyFaultsError
from equilidar.data.folder import FolderPairs
from equilidar.data.packed import PackedPairs
from equilidar.data.packing import Packing
from equilidar.data.packing_estimate import Estimate, Measurement, peak_memory
from equilidar.data.packing_workers import PackingError
from equilidar.data.simulator import SimulatedPairs
from equilidar.structures import SweepPair
from tests.data.fake_data import CONTRACT, FakeSamples, cloud, write_bin
from tests.data.packed_stores import assert_same_pair, pack, write_log

SENSOR = {"name": "hdl64e", "azimuth_steps": 90, "beam_stride": 8}


def test_a_faulty_file_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_log(tmp_path / "log", 6, empty=("a/2.bin",))
    index = pack(FolderPairs(tmp_path / "log"), tmp_path / "store")
    assert index.num_sweeps == 11 and "1 faulty" in index.summary()
    assert [key for key, _ in index.faults] == ["folder/a/2"] and "2.bin: empty file" in index.faults[0][1]
    assert "skipped folder/a/2" in capsys.readouterr().out
    raw, packed = FolderPairs(tmp_path / "log", gap=2), PackedPairs(tmp_path / "store", gap=2)
    # As without packing, sweeps 1 and 3 are a pair at gap 2, and the pairs of sweep 2 are not there.
    assert packed.keys == [key for key in raw.keys if "a/2" not in key]
    assert "folder/a/1->folder/a/3" in packed.keys
    for key in packed.keys:
        assert_same_pair(packed[packed.keys.index(key)], raw[raw.keys.index(key)])


def test_too_many_faulty_files_stop_it(tmp_path: Path):
    write_log(tmp_path / "log", 6, empty=("a/2.bin", "a/3.bin", "b/1.bin"))
    data = FolderPairs(tmp_path / "log")
    with pytest.raises(TooManyFaultsError, match=r"3 of 12 .*folder/a/2.*faults.max_fraction"):
        pack(data, tmp_path / "store", num_workers=1)
    with pytest.raises(FileNotFoundError, match=r"not finished: run `python tools/prepare.py"):
        PackedPairs(tmp_path / "store")
    assert pack(data, tmp_path / "store", faults=FaultBudget(0.5)).num_sweeps == 9


def test_finished_files_are_not_made_again(tmp_path: Path):
    data = FolderPairs(write_log(tmp_path / "log", 6))
    index = pack(data, tmp_path / "store")
    (lost, kept) = (tmp_path / "store" / "sequences" / file.name for file in index.files)
    stamp, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.write_bytes(content[:-9])
    with pytest.raises(ValueError, match=f"{lost.name} has .* bytes instead of .* to repair it"):
        PackedPairs(tmp_path / "store")

    again = Packing(data, tmp_path / "store", "")
    assert not again.is_finished and [unit.name for unit in again.todo] == [lost.stem]
    assert again.estimate().num_sweeps == 6
    assert again.run().hash == index.hash
    assert lost.read_bytes() == content and kept.stat().st_mtime_ns == stamp
    assert Packing(data, tmp_path / "store", "").is_finished


def test_verify_finds_a_flipped_bit(tmp_path: Path):
    data = FolderPairs(write_log(tmp_path / "log"))
    index = pack(data, tmp_path / "store")
    path = index.paths[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert Packing(data, tmp_path / "store", "").is_finished
    assert [unit.name for unit in Packing(data, tmp_path / "store", "", verify=True).todo] == [path.stem]


def test_store_does_not_depend_on_the_number_of_processes(tmp_path: Path):
    data = FolderPairs(write_log(tmp_path / "log"))
    hashes = {pack(data, tmp_path / str(n), num_workers=n, sweeps_per_file=3).hash for n in (1, 2, 3)}
    assert len(hashes) == 1


def test_no_more_processes_than_memory_allows(tmp_path: Path):
    """As many as asked for, files and memory allow, one at least."""
    data, store = FolderPairs(write_log(tmp_path / "log")), tmp_path / "store"
    packing = Packing(data, store, "", num_workers=5, max_memory_gb=1000.0, sweeps_per_file=2)
    estimate = packing.estimate()
    assert estimate.num_workers == 4 == estimate.num_files and "instead" not in packing.describe(estimate)
    assert 50e6 < estimate.worker_memory < 1000e9
    found = Measurement(1000, 1.0, 2, memory=100_000_000)
    for max_memory, expected in ((1e6, 1), (peak_memory() + 250e6, 2), (1e12, 4)):
        told = Estimate.of(found, num_sweeps=8, num_files=4, num_workers=5, max_memory=max_memory)
        assert (told.num_workers, told.num_bytes, told.seconds) == (expected, 4000, 4.0 / expected)
    little = Packing(data, store, "", num_workers=3, max_memory_gb=0.001)
    assert "1 worker(s) instead of 3: each takes" in little.describe(little.estimate())
    assert little.run(1).num_sweeps == 8
    with pytest.raises(ValueError, match="max_memory_gb must be positive"):
        Packing(data, store, "", max_memory_gb=0.0)


def test_other_settings_are_refused_in_one_line(tmp_path: Path):
    write_log(tmp_path / "log")
    pack(FolderPairs(tmp_path / "log"), tmp_path / "store")
    with pytest.raises(ValueError, match=r"other settings \(contract.channels.*overwrite=true"):
        Packing(FolderPairs(tmp_path / "log", channels=(), scales=()), tmp_path / "store", "")
    with pytest.raises(ValueError, match="sweeps_per_file"):
        Packing(FolderPairs(tmp_path / "log"), tmp_path / "store", "", sweeps_per_file=7)
    with pytest.raises(ValueError, match=r"other settings \(kind"):
        Packing(FakeSamples(3, "labelled"), tmp_path / "store", "")
    write_bin(tmp_path / "log" / "a" / "1.bin", cloud(5, 7))
    with pytest.raises(ValueError, match=r"source.hash"):
        Packing(FolderPairs(tmp_path / "log"), tmp_path / "store", "")
    other = FolderPairs(tmp_path / "log", channels=(), scales=())
    assert pack(other, tmp_path / "store", overwrite=True).contract == other.contract
    assert PackedPairs(tmp_path / "store")[0].source.features.shape == (40, 0)


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path):
    data = FolderPairs(write_log(tmp_path / "log"))
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="no packed store; choose another folder"):
            Packing(data, tmp_path / "log", "", overwrite=overwrite)
    with pytest.raises(ValueError, match="is a file"):
        Packing(data, tmp_path / "log" / "a" / "0.bin", "")


class PairsAlone:
    name, contract = "mine", CONTRACT

    def __init__(self) -> None:
        self.keys = ["mine/0/0->mine/0/1"]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> SweepPair:
        raise NotImplementedError


def test_what_cannot_be_packed(tmp_path: Path):
    with pytest.raises(ValueError, match=r"dataset mine cannot be packed: .* one by one"):
        Packing(PairsAlone(), tmp_path / "store", "")
    with pytest.raises(ValueError, match=r"dataset.exact_flow=false"):
        Packing(SimulatedPairs(SENSOR, 1, 1, exact_flow=True), tmp_path / "store", "")
    with pytest.raises(ValueError, match="num_workers must be at least 1"):
        Packing(FakeSamples(3, "labelled"), tmp_path / "store", "", num_workers=0)


def test_settings_that_do_not_fit_name_the_sweep(tmp_path: Path):
    data = FolderPairs(write_log(tmp_path / "log"), channels=("ring",))
    for attempt in (lambda p: p.estimate(), lambda p: p.run()):
        with pytest.raises(PackingError, match=r"folder/[ab]/0: .*no column 'ring'"):
            attempt(Packing(data, tmp_path / "store", ""))


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_index_of_another_version_or_damaged(tmp_path: Path):
    data, store = FolderPairs(write_log(tmp_path / "log")), tmp_path / "store"
    command = "python tools/prepare.py dataset=folder"
    Packing(data, store, command).run()
    good = (store / "index.json").read_text()
    edit(store / "index.json", version=0)
    for attempt in (lambda: PackedPairs(store), lambda: Packing(data, store, command)):
        with pytest.raises(ValueError, match=f"version 0, .* rebuild it: {command} overwrite=true"):
            attempt()
    (store / "index.json").write_text(good[:-20])
    for attempt in (lambda: PackedPairs(store), lambda: Packing(data, store, command)):
        with pytest.raises(ValueError, match=r"index.json is damaged; rebuild .* overwrite=true"):
            attempt()
    (store / "index.json").write_text(good)
    edit(store / "index.json", sweeps_hash="0")
    with pytest.raises(ValueError, match="damaged or was edited"):
        PackedPairs(store)
    (store / "index.json").write_text(good)
    (store / "sweeps.arrow").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"sweeps.arrow cannot be used .* run `python tools/prepare.py .* to repair"):
        PackedPairs(store)
