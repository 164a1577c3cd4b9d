"""Calls of `tools/evaluate.py`."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.calling import Call, Done

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["here", pytest.param("process", marks=pytest.mark.slow)])
def call(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Call the command: in this process, which is fast and checks shapes, or as a user does."""
    tool = str(ROOT / "tools" / "evaluate.py")

    def here(arguments: list[str]) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [tool, *arguments])
        code = 0
        try:
            runpy.run_path(tool, run_name="__main__")
        except SystemExit as error:
            code = error.code
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    def process(arguments: list[str]) -> Done:
        command = [sys.executable, tool, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return here if request.param == "here" else process
