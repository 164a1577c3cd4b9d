"""Faulty files, made in every format, through the command: with the preflight and without it."""

import dataclasses
import json
import math
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.feather
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from equilidar.evaluation.preflight import FileEvaluator
from tests.evaluation.calling import Call, Done
from tests.evaluation.fake_sets import (
    FRAMES,
    WRITERS,
    Box,
    Boxes,
    change,
    change_first,
    make_detections,
    make_truth,
    write_flow,
)

ROOT = Path(__file__).resolve().parents[2]
CHECK, EVALUATE = (True,), (False,)


def _replace(**values: object) -> Callable[[Box], Box]:
    return lambda box: dataclasses.replace(box, **values)  # pyright: ignore[reportArgumentType]


def _without(boxes: Boxes, drive: str) -> Boxes:
    return {frame: of_frame for frame, of_frame in boxes.items() if frame[0] != drive}


def _edit_text(find: str, put: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        file = path if path.is_file() else sorted(path.iterdir())[0]
        text = file.read_text()
        assert find in text
        file.write_text(text.replace(find, put, 1))

    return edit


def _one_column_less(path: Path) -> None:
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        next(iter(content["results"].values()))[0]["translation"].pop()
        path.write_text(json.dumps(content))
    elif path.suffix == ".npz":
        with np.load(path) as file:
            columns = dict(file)
        np.savez(path, **(columns | {"pred_box": columns["pred_box"][:, :6]}))
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(pyarrow.feather.read_table(path).drop_columns(["height_m"]), path)
    else:
        file = sorted(path.iterdir())[0]
        file.write_text("\n".join(row.rpartition(" ")[0] for row in file.read_text().splitlines()))


@dataclass(frozen=True)
class Fault:
    """What is wrong with detections, and what must be said about it (by data set where that differs)."""

    of_boxes: Callable[[Boxes], Boxes] | None
    message: str | dict[str, str]
    modes: tuple[bool, ...] | dict[str, tuple[bool, ...]] = CHECK + EVALUATE
    of_file: Callable[[Path], None] | None = None

    def expected(self, name: str) -> str | None:
        return self.message.get(name) if isinstance(self.message, dict) else self.message

    def modes_of(self, name: str) -> tuple[bool, ...]:
        return self.modes.get(name, CHECK + EVALUATE) if isinstance(self.modes, dict) else self.modes


# Waymo's and Argoverse 2's files list boxes: a frame without any is legal, and the official tools go on.
LISTS = {"waymo": CHECK, "argoverse2": CHECK}
SIZE = "size .*negative"
FAULTS = {
    "missing frame": Fault(
        lambda boxes: {frame: boxes[frame] for frame in FRAMES[1:]},
        {"kitti": r"no file for 1 frame", "nuscenes": "lacks 1 sample.*a-0", "waymo": "lacks 1 frame.*a/0"}
        | {"argoverse2": "lacks 1 sweep.*log-a/1000"},
        LISTS,
    ),
    "missing drive": Fault(
        lambda boxes: _without(boxes, "b"),
        {"waymo": "lacks 1 (drive|frame).*b", "argoverse2": "lacks 1 (log|sweep).*log-b"},
    ),
    "extra frame": Fault(
        lambda boxes: boxes | {("b", 7): boxes[FRAMES[0]]},
        {"kitti": "detections for 1 frame", "nuscenes": "holds 1 sample.*b-7", "waymo": "holds 1 frame.*b/7"}
        | {"argoverse2": "holds 1 sweep.*log-b/1007"},
        LISTS,
    ),
    "unknown class": Fault(lambda boxes: change_first(boxes, _replace(kind="dragon")), "unknown class .*known are"),
    "NaN": Fault(lambda boxes: change_first(boxes, _replace(x=math.nan)), "(is nan|no finite number|not finite)"),
    "NaN score": Fault(
        lambda boxes: change_first(boxes, _replace(score=math.nan)), "(is nan|no finite number|not finite|score is nan)"
    ),
    "negative size": Fault(
        lambda boxes: change_first(boxes, _replace(length=-4.0)),
        {"kitti": "negative size", "nuscenes": SIZE, "waymo": SIZE, "argoverse2": SIZE},
    ),
    "duplicated token": Fault(
        None, {"nuscenes": "sample token a-1 is duplicated"}, of_file=_edit_text('"a-0": ', '"a-1": [], "a-0": ')
    ),
    "wrong column count": Fault(
        None,
        {"kitti": "15 columns", "nuscenes": "have 2, 3, 4 and 2 numbers", "waymo": r"pred_box must be .*\(24, 7\)"}
        | {"argoverse2": "without height_m"},
        of_file=_one_column_less,
    ),
    "sunk": Fault(
        lambda boxes: change(boxes, lambda b: dataclasses.replace(b, z=b.z - b.height / 2)), "sink by half", CHECK
    ),
    "floating": Fault(
        lambda boxes: change(boxes, lambda b: dataclasses.replace(b, z=b.z + b.height / 2)), "float by half", CHECK
    ),
    "mirrored": Fault(
        lambda boxes: change(boxes, lambda b: dataclasses.replace(b, y=-b.y, yaw=-b.yaw)), "(mirrored|swapped)", CHECK
    ),
    "quarter turn": Fault(
        lambda boxes: change(boxes, lambda b: dataclasses.replace(b, yaw=b.yaw + math.pi / 2)), "offset by 90", CHECK
    ),
    "negated yaw": Fault(lambda boxes: change(boxes, lambda b: dataclasses.replace(b, yaw=-b.yaw)), "negated", CHECK),
    "swapped sizes": Fault(
        lambda boxes: change(boxes, lambda b: dataclasses.replace(b, length=b.width, width=b.length)),
        "length and width are swapped",
        CHECK,
    ),
}
CASES = [
    pytest.param(fault, name, check, id=f"{fault}-{name}-{'check' if check else 'evaluate'}".replace(" ", "_"))
    for fault, description in FAULTS.items()
    for name in WRITERS
    if description.expected(name)
    for check in description.modes_of(name)
]


def _arguments(name: str, paths: tuple[Path, Path], check: bool) -> list[str]:
    words = [f"evaluator={name}", f"evaluator.ground_truth={paths[0]}", f"evaluator.detections={paths[1]}"]
    return [*words, *(["check=true"] if check else [])]


def _write(fault: str, name: str, folder: Path) -> tuple[Path, Path]:
    truth = make_truth()
    found, description = make_detections(truth), FAULTS[fault]
    paths = WRITERS[name](folder, truth, description.of_boxes(found) if description.of_boxes else found)
    if description.of_file:
        description.of_file(paths[1])
    return paths


def _assert_refused(done: Done, message: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize(("fault", "name", "check"), CASES)
def test_a_faulty_file_is_one_line_and_exit_code_2(
    fault: str, name: str, check: bool, call: Call, tmp_path: Path
) -> None:
    done = call(_arguments(name, _write(fault, name, tmp_path), check))
    message = FAULTS[fault].expected(name)
    assert message is not None
    _assert_refused(done, message)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("fault", ["missing frame", "extra frame"])
def test_evaluation_of_lists_names_frames_that_differ(fault: str, name: str, call: Call, tmp_path: Path) -> None:
    words = _arguments(name, _write(fault, name, tmp_path), check=False)
    for more, times in (([], 1), (["evaluator.sparse=true"], 0)):
        done = call([*words, *more])
        assert done.returncode == 0, done.stderr
        named = re.findall(f"{FAULTS[fault].expected(name)}.*add evaluator.sparse=true", done.stdout)
        assert len(named) == times, done.stdout


@pytest.mark.parametrize("name", WRITERS)
def test_sound_files_pass_and_the_report_says_what_was_checked(name: str, call: Call, tmp_path: Path) -> None:
    truth = make_truth()
    paths = WRITERS[name](tmp_path, truth, make_detections(truth))
    done = call(_arguments(name, paths, check=True))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ground truth") and "24 boxes" in lines[0]
    assert any(line.startswith("detections") and "24 boxes" in line for line in lines)
    assert "24 of 24 objects have a detection within 1 m" in lines[-2] and lines[-1] == "ok"


@pytest.mark.parametrize("name", [*WRITERS, "scene_flow"])
def test_ground_truth_alone_can_be_checked_but_not_evaluated(name: str, call: Call, tmp_path: Path) -> None:
    truth = make_truth()
    paths = write_flow(tmp_path) if name == "scene_flow" else WRITERS[name](tmp_path, truth, make_detections(truth))
    words = [f"evaluator={name}", f"evaluator.ground_truth={paths[0]}"]
    done = call([*words, "check=true"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ground truth") and done.stdout.endswith("ok\n")
    _assert_refused(call(words), "evaluator.detections must be given")


@pytest.mark.parametrize("name", [*WRITERS, "scene_flow"])
def test_every_evaluator_has_the_same_face(name: str) -> None:
    config = OmegaConf.load(ROOT / "configs" / "evaluator" / f"{name}.yaml")
    assert isinstance(instantiate(config, ground_truth="somewhere"), FileEvaluator)


def test_a_check_needs_files(call: Call, tmp_path: Path) -> None:
    _assert_refused(call(["check=true", "checkpoint=x.safetensors"]), "check=true looks at files")


def _flow_missing(folder: Path) -> None:
    (folder / "det" / "log-a" / "1.feather").unlink()


def _flow_extra(folder: Path) -> None:
    (folder / "det" / "log-a" / "9.feather").write_bytes((folder / "det" / "log-a" / "1.feather").read_bytes())


def _flow_column(folder: Path) -> None:
    path = folder / "det" / "log-a" / "1.feather"
    pyarrow.feather.write_feather(pyarrow.feather.read_table(path).drop_columns(["flow_tz_m"]), path)


def _flow_short(folder: Path) -> None:
    path = folder / "det" / "log-a" / "1.feather"
    pyarrow.feather.write_feather(pyarrow.feather.read_table(path).slice(0, 100), path)


def _flow_nan(folder: Path) -> None:
    path = folder / "det" / "log-b" / "2.feather"
    table = pyarrow.feather.read_table(path)
    table = table.set_column(0, "flow_tx_m", [np.full(table.num_rows, np.nan, np.float16)])
    pyarrow.feather.write_feather(table, path)


def _flow_class(folder: Path) -> None:
    path = folder / "gt" / "log-b" / "2.feather"
    table = pyarrow.feather.read_table(path)
    number = table.column_names.index("category_indices")
    table = table.set_column(number, "category_indices", [np.full(table.num_rows, 31, np.uint8)])
    pyarrow.feather.write_feather(table, path)


FLOW_FAULTS = {
    "missing": (_flow_missing, "no estimate for 1 of 2 examples .*log-a/1.feather"),
    "extra": (_flow_extra, "estimates for 1 examples? without ground truth .*log-a/9.feather"),
    "column": (_flow_column, "log-a/1.feather has 3 columns without flow_tz_m"),
    "points": (_flow_short, "100 points is estimated, the ground truth has 200"),
    "NaN": (_flow_nan, "example log-b/2.feather: the estimated flow of point .* not finite"),
    "class": (_flow_class, "unknown class 31"),
}


@pytest.mark.parametrize("check", [True, False], ids=["check", "evaluate"])
@pytest.mark.parametrize("fault", FLOW_FAULTS)
def test_a_faulty_flow_file_is_one_line_and_exit_code_2(fault: str, check: bool, call: Call, tmp_path: Path) -> None:
    paths = write_flow(tmp_path)
    spoil, message = FLOW_FAULTS[fault]
    spoil(tmp_path)
    _assert_refused(call(_arguments("scene_flow", paths, check)), message)


@pytest.mark.parametrize(
    ("estimate", "message"),
    [
        (lambda flow: -flow, "negated"),
        (lambda flow: flow * [1, -1, 1], "mirrored left to right"),
        (lambda flow: flow * 10, "metres per second"),
    ],
)
def test_another_convention_of_flow_is_named_by_the_preflight(
    estimate: Callable[[np.ndarray], np.ndarray], message: str, call: Call, tmp_path: Path
) -> None:
    paths = write_flow(tmp_path, estimate)
    _assert_refused(call(_arguments("scene_flow", paths, check=True)), message)


def test_a_duplicated_example_of_a_zip_is_refused(call: Call, tmp_path: Path) -> None:
    truth, found = write_flow(tmp_path)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "det.zip", "w") as archive:
        for name in ("log-a/1.feather", "log-b/2.feather", "log-a/1.feather"):
            archive.write(found / name, name)
    arguments = _arguments("scene_flow", (truth, tmp_path / "det.zip"), check=False)
    _assert_refused(call(arguments), "log-a/1.feather is duplicated")
