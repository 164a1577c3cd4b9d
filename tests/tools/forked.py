"""Many runs of a tool as processes of their own, for the price of importing everything once."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    returncode: int
    stdout: str
    stderr: str


def run_forked(tool: str, commands: dict[str, list[str]], folder: Path) -> dict[str, Done]:
    """Run `tools/<tool>.py` once for each list of arguments, each in a fork of a process that has torch loaded."""
    request = {"tool": str(ROOT / "tools" / f"{tool}.py"), "commands": commands}
    driver = [sys.executable, "-m", "tests.tools.forked"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        driver, input=json.dumps(request), cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return {name: Done(*result) for name, result in json.loads(done.stdout.splitlines()[-1]).items()}


def _fork(tool: str, arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = [tool, *arguments]
            _run_and_leave(tool)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return os.waitstatus_to_exitcode(status), *texts


def _run_and_leave(tool: str) -> None:
    """Run the tool as `python tool` would, and end this process with its exit code."""
    import runpy
    import traceback

    code = 0
    try:
        runpy.run_path(tool, run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve() -> None:
    # What the tool would import, once for all.
    import hydra.utils  # noqa: F401
    import torch

    import equilidar.data.argoverse2_labelled
    import equilidar.data.nuscenes_labelled
    import equilidar.data.once_labelled
    import equilidar.data.own_log
    import equilidar.data.waymo_labelled
    import equilidar.report.pictures
    import equilidar.report.sweep_counts
    import equilidar.training.conversion  # noqa: F401

    torch.set_num_threads(1)  # threads do not survive a fork
    request = json.load(sys.stdin)
    print(json.dumps({name: _fork(request["tool"], command) for name, command in request["commands"].items()}))


if __name__ == "__main__":
    _serve()
