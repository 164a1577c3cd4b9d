"""Checkpoints survive kills and full disks, and hold no code."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from equilidar import atomic_file
from equilidar.training.checkpoint_io import AtomicCheckpointIO

IO = AtomicCheckpointIO()


def test_what_was_saved_is_loaded(tmp_path):
    state: dict = {"weights": {"a": torch.arange(3.0)}, "step": 4, "rng": torch.get_rng_state(), "names": ("x", None)}
    IO.save_checkpoint(state, tmp_path / "new" / "last.ckpt")
    loaded = IO.load_checkpoint(tmp_path / "new" / "last.ckpt")
    assert (loaded.pop("rng") == state.pop("rng")).all() and (loaded.pop("weights")["a"] == torch.arange(3.0)).all()
    assert loaded == {"step": 4, "names": ("x", None)}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_the_last_good_one(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint({"step": 1}, path)

    class FullDisk:
        """A file on which only the first hundred bytes find room."""

        def __init__(self, file):
            self._file, self._room = file, 100

        def write(self, data):
            self._room -= len(data)
            if self._room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(data)

        def __getattr__(self, name):
            return getattr(self._file, name)

    real = torch.save
    monkeypatch.setattr(torch, "save", lambda value, file: real(value, FullDisk(file)))
    with pytest.raises(OSError, match=r"No space left.*previous one is untouched"):
        IO.save_checkpoint({"step": 2, "weights": torch.zeros(10_000)}, path)
    assert IO.load_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_failing_fsync_leaves_the_last_good_one(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint({"step": 1}, path)

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic_file.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        IO.save_checkpoint({"step": 2}, path)
    assert IO.load_checkpoint(path) == {"step": 1}


_WRITER = """
import sys, pathlib
from equilidar.atomic_file import atomic_file
path = pathlib.Path(sys.argv[1])
number = 0
while True:
    number += 1
    with atomic_file(path) as file:
        for _ in range(20000):
            file.write((str(number) + "\\n").encode())
    print(number, flush=True)
"""


def test_a_kill_in_mid_write_leaves_a_whole_file(tmp_path):
    path = tmp_path / "last.ckpt"
    for delay in (0.003, 0.011, 0.017, 0.029):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        lines = path.read_text().splitlines()
        assert len(lines) == 20000 and len(set(lines)) == 1


class _Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_pickled_code_is_refused_and_not_run(tmp_path):
    torch.save({"state": _Evil(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps({"state": _Evil(tmp_path / "ran")}))
    for name in ("evil.ckpt", "plain.ckpt"):
        with pytest.raises(ValueError, match="holds more than tensors"):
            IO.load_checkpoint(tmp_path / name, weights_only=False)
    assert not (tmp_path / "ran").exists()


def test_a_truncated_checkpoint_is_an_error_with_its_name(tmp_path):
    path = tmp_path / "last.ckpt"
    IO.save_checkpoint({"weights": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"last\.ckpt"):
        IO.load_checkpoint(path)


def test_an_absent_checkpoint_is_an_error_with_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        IO.load_checkpoint(tmp_path / "none.ckpt")
