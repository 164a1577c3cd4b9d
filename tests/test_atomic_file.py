"""Files are whole or not there, and are made with the permissions that any new file gets."""

import os
import signal
import subprocess
import sys

import pytest

from equilidar.atomic_file import atomic_file


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"), atomic_file(path) as file:
        file.write(b"new, but")
        raise OSError("disk full")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_kill_in_mid_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    script = (
        "import sys, time; from equilidar.atomic_file import atomic_file\n"
        "with atomic_file(sys.argv[1]) as file:\n"
        "    file.write(b'new'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    assert path.read_bytes() == b"old"


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "folder" / "file"
    with atomic_file(path) as one:
        one.write(b"on")
        with atomic_file(path) as other:
            other.write(b"other")
        assert path.read_bytes() == b"other"
        one.write(b"e")
    assert path.read_bytes() == b"one" and list(path.parent.iterdir()) == [path]


def test_permissions_are_those_of_a_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_file(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
