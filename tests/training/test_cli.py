"""Which errors are the user's, what they are told, and output that nobody reads to its end."""

import subprocess
import sys

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from equilidar.structures import GridSpec
from equilidar.training.cli import PACKAGE, one_line


def _raised(function) -> Exception:
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


def _line(function) -> str | None:
    return one_line(_raised(function), "pretrain", [])


def test_an_error_that_our_code_raises_is_one_line():
    line = _line(lambda: GridSpec.from_range([0, 0, 0], [1, 1, 1]))
    assert line is not None and "point_range" in line and "\n" not in line


@pytest.mark.parametrize(
    ("body", "ours"), [("torch.zeros(2, 3) @ torch.zeros(2, 3)", False), ("raise RuntimeError('too many')", True)]
)
def test_only_a_raise_statement_of_ours_makes_a_line(body, ours):
    code = compile(f"import torch\n{body}", str(PACKAGE / "imagined.py"), "exec")
    assert (_line(lambda: exec(code, {})) is not None) == ours


def test_an_error_of_other_code_is_a_bug():
    assert _line(lambda: int("x")) is None


def test_a_file_that_cannot_be_read_is_the_users(tmp_path):
    assert "absent.bin" in (_line((tmp_path / "absent.bin").read_bytes) or "")


def test_errors_of_constructors_name_the_config_key():
    node = {"_target_": "equilidar.structures.GridSpec.from_range", "point_range": [0, 0], "voxel_size": [1, 1, 1]}
    error = _raised(lambda: instantiate({"grid": node}))
    assert isinstance(error, InstantiationException)
    line = one_line(error, "pretrain", [])
    assert line is not None and line.startswith("grid.point_range must be") and "\n" not in line


def test_an_argument_that_a_constructor_does_not_know_is_named():
    node = {"_target_": "equilidar.training.known_keys.nearest", "key": "a", "known": [], "knwon": []}
    line = _line(lambda: instantiate({"part": node}))
    assert line is not None and line.startswith("part: ") and "knwon" in line and "\n" not in line


@pytest.mark.parametrize("number", [1, 100_000], ids=["flushed at the end", "while printing"])
@pytest.mark.parametrize("tool", ["entry_point", "argparse"])
def test_output_that_nobody_reads_ends_a_command_without_a_word(tool: str, number: int) -> None:
    """As `tool | head`; where the run goes on in a hydra task, and where it does not."""
    head = {
        "entry_point": "from equilidar.training.cli import entry_point\n@entry_point('splits')\ndef main(cfg):",
        "argparse": "from equilidar.training.quiet_pipe import quiet_pipe\n@quiet_pipe()\ndef main():",
    }[tool]
    code = f"import sys\n{head}\n    sys.stdin.read()\n    for _ in range({number}): print('a line of a table')\nmain()"
    needed = ["name=n", "output=o"] if tool == "entry_point" else []
    command, pipe = [sys.executable, "-c", code, *needed], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=PACKAGE.parent, text=True) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()  # the reader is gone before the first line
        process.stdin.close()
        said = process.stderr.read()
    assert process.returncode == 141 and said == "", said
