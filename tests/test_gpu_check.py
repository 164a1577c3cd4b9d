"""The stages for a GPU machine name what is there, and leave out nothing that needs a GPU."""

import itertools
import re
from pathlib import Path

import pytest

from benchmarks import bundle, gpu_check

ROOT = Path(__file__).resolve().parents[1]


def test_every_gpu_test_is_in_a_stage():
    marked = [path for path in (ROOT / "tests").rglob("*.py") if "pytest.mark.gpu" in path.read_text()]
    named = [ROOT / place for place in gpu_check.GPU_TESTS]
    assert len(marked) >= 3 and all(place.exists() for place in named)
    this_file = Path(__file__).resolve()
    missing = [path for path in marked if path != this_file and not any(path.is_relative_to(place) for place in named)]
    assert missing == []


@pytest.mark.parametrize("stage", gpu_check.STAGES)
def test_stages_run_files_that_exist(stage):
    for command in gpu_check.STAGES[stage]:
        files = [part for part in command if re.fullmatch(r"[\w/]+\.py", part)]
        folder = ROOT / "cuda_ext" if stage == "build" else ROOT
        assert all((folder / file).is_file() for file in files)
        modules = [after.replace(".", "/") + ".py" for part, after in itertools.pairwise(command) if part == "-p"]
        assert all((ROOT / module).is_file() for module in modules if module.startswith("tests/"))


def test_what_the_archive_holds_is_pinned():
    pins = bundle.constraints(ROOT / "constraints.txt")
    unpinned = [name for name in (*bundle._PINNED, bundle._PURE_SOURCE) if bundle._normalised(name) not in pins]
    assert unpinned == []
