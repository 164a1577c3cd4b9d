"""Errors by hand, buckets against plain loops, and the file formats against each other."""

import itertools
import math
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from equilidar.evaluation.scene_flow import CATEGORY_TO_INDEX, GROUPS, FlowExample, evaluate_scene_flow
from equilidar.evaluation.scene_flow_evaluator import SceneFlowEvaluator
from tests.evaluation.fake_sets import write_flow
from tests.evaluation.oracle_cases import deviation

CAR, CONE = CATEGORY_TO_INDEX["REGULAR_VEHICLE"], CATEGORY_TO_INDEX["CONSTRUCTION_CONE"]


def _example(flow: list, estimate: list, category: list[int], *, moves: list[bool] | None = None) -> FlowExample:
    num = len(flow)
    yes, dynamic = np.ones(num, np.bool_), np.array(moves or [False] * num, dtype=np.bool_)
    kind = np.array(category, dtype=np.int64)
    arrays = np.array(flow, dtype=np.float64), np.zeros((num, 3)), np.array(estimate, dtype=np.float64)
    return FlowExample("0", kind, yes, dynamic, yes, *arrays, dynamic)


def test_accuracies_and_angle_by_hand() -> None:
    flow = [[0.0, 0, 0], [1.0, 0, 0], [0.1, 0, 0]]
    estimate = [[0.07, 0, 0], [0.94, 0, 0], [0, 0.1, 0]]
    row = evaluate_scene_flow([_example(flow, estimate, [0, 0, 0])])["per_example"][2]
    assert (row["Class"], row["Motion"], row["Count"]) == ("Background", "Static", 3)
    assert row["EPE"] == pytest.approx((0.07 + 0.06 + 0.1 * math.sqrt(2)) / 3)
    # 0.07 m is relaxed only, 6 % of 1 m too, and 0.14 m of 0.1 m neither.
    assert (row["ACCURACY_STRICT"], row["ACCURACY_RELAX"]) == pytest.approx((0, 2 / 3))
    angles = [math.atan2(0.07, 0.1), math.atan2(1, 0.1) - math.atan2(0.94, 0.1), math.acos(0.01 / 0.02)]
    assert row["ANGLE_ERROR"] == pytest.approx(np.mean(angles))


def test_totals_weigh_examples_by_points_and_leave_out_moving_background() -> None:
    one = _example([[0.0, 0, 0]] * 3, [[0.3, 0, 0]] * 3, [CAR] * 3)
    other = _example([[0.0, 0, 0]] * 2, [[0.8, 0, 0]] * 2, [CAR, 0], moves=[False, True])
    totals = evaluate_scene_flow([one, other])["totals"]
    assert totals["EPE/Foreground/Static"] == pytest.approx((3 * 0.3 + 0.8) / 4)
    assert not [name for name in totals if "Background/Dynamic" in name]
    assert math.isnan(totals["EPE/Background/Static"]) and math.isnan(totals["EPE 3-Way Average"])
    assert totals["Dynamic IoU"] == 1.0


def test_buckets_against_plain_loops() -> None:
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 0.5, (400, 3)) * (rng.random((400, 1)) < 0.6)
    estimate = flow + rng.normal(0, 0.1, flow.shape)
    moves = (np.linalg.norm(flow, axis=1) >= 0.05).tolist()
    example = _example(flow.tolist(), estimate.tolist(), rng.integers(0, 31, 400).tolist(), moves=moves)
    got = evaluate_scene_flow([example])["bucketed"]["all"]
    edges = [*(0.04 * step for step in range(51)), math.inf]
    for name, members in GROUPS.items():
        own = np.isin(example.category, [CATEGORY_TO_INDEX[member] for member in members])
        motion, error = np.linalg.norm(flow, axis=1), np.linalg.norm(estimate - flow, axis=1)
        masks = [own & (low <= motion) & (motion < high) for low, high in itertools.pairwise(edges)]
        assert got[name]["static"] == pytest.approx(error[masks[0]].mean())
        expected = [error[mask].mean() / motion[mask].mean() for mask in masks[1:] if mask.any()]
        assert got[name]["dynamic"] == pytest.approx(np.mean(expected))
    assert got["mean"]["dynamic"] == pytest.approx(np.mean([got[name]["dynamic"] for name in GROUPS]))
    assert not any(CATEGORY_TO_INDEX[member] == CONE for members in GROUPS.values() for member in members)


def test_buckets_are_of_motion_against_the_world() -> None:
    rng = np.random.default_rng(0)
    motion = rng.normal(0, 0.5, (400, 3)) * (rng.random((400, 1)) < 0.3)
    error, ego = rng.normal(0, 0.1, motion.shape), np.array([-1.2, 0.1, 0.0])
    moves, kind = (np.linalg.norm(motion, axis=1) >= 0.05).tolist(), rng.integers(0, 31, 400).tolist()
    still = evaluate_scene_flow([_example(motion.tolist(), (motion + error).tolist(), kind, moves=moves)])["bucketed"]
    driving = _example((motion + ego).tolist(), (motion + error + ego).tolist(), kind, moves=moves)
    assert evaluate_scene_flow([driving])["bucketed"] is None
    driving.rest = np.tile(ego, (400, 1))
    assert deviation(evaluate_scene_flow([driving])["bucketed"], still) < 1e-12


def test_ego_motion_is_read_or_asked_for(tmp_path: Path) -> None:
    truth, found = write_flow(tmp_path, lambda flow: flow + 0.05)
    expected = SceneFlowEvaluator(truth, found).evaluate()
    ego = tmp_path / "ego"
    for side in (truth, found):
        for path in sorted(side.rglob("*.feather")):
            table = pyarrow.feather.read_table(path).to_pydict()
            shifted = {**table, "flow_tx_m": (np.array(table["flow_tx_m"]) + 1).astype(np.float32)}
            pyarrow.feather.write_feather(pa.table(shifted), path)
            rest = ego / path.relative_to(side)
            rest.parent.mkdir(parents=True, exist_ok=True)
            zero = np.zeros(len(table["flow_tx_m"]))
            flow = {"flow_tx_m": zero + 1, "flow_ty_m": zero, "flow_tz_m": zero}
            pyarrow.feather.write_feather(pa.table({"is_dynamic": zero > 0, **flow}), rest)
    evaluator = SceneFlowEvaluator(truth, found)
    assert evaluator.evaluate()["bucketed"] is None
    for text in (evaluator.table(evaluator.evaluate()), "\n".join(evaluator.check())):
        assert "give evaluator.ego_motion=PATH" in text
    informed = SceneFlowEvaluator(truth, found, ego)
    assert deviation(informed.evaluate()["bucketed"], expected["bucketed"]) < 1e-3
    assert "ego motion" not in "\n".join(informed.check())
    next(ego.rglob("*.feather")).unlink()
    with pytest.raises(ValueError, match="no estimate for 1 of 2"):
        informed.evaluate()


def test_a_perfect_estimate_has_no_error_and_nothing_is_an_error() -> None:
    flow = np.random.default_rng(0).normal(0, 1, (50, 3)).tolist()
    totals = evaluate_scene_flow([_example(flow, flow, [CAR] * 50, moves=[True] * 50)])["totals"]
    assert totals["EPE/Foreground/Dynamic"] == 0 and totals["Accuracy Strict/Foreground/Dynamic"] == 1
    assert totals["Angle Error/Foreground/Dynamic"] < 1e-7
    with pytest.raises(ValueError, match="no example"):
        evaluate_scene_flow([])


def test_folder_zip_and_arrays_give_the_same(tmp_path: Path) -> None:
    truth, found = write_flow(tmp_path, lambda flow: flow + 0.05)
    columns: dict[str, np.ndarray] = {"n_examples": np.array(2)}
    for archive_name, folder in (("gt.zip", truth), ("det.zip", found)):
        with zipfile.ZipFile(tmp_path / archive_name, "w") as archive:
            for index, path in enumerate(sorted(folder.rglob("*.feather"))):
                archive.write(path, path.relative_to(folder))
                table = pyarrow.feather.read_table(path)
                side = "gt" if folder == truth else "pred"
                columns[f"{side}_flow_{index}"] = np.stack([table[f"flow_t{a}_m"].to_numpy() for a in "xyz"], 1)
                for name in table.column_names:
                    if not name.startswith("flow"):
                        key = f"{name}_{index}" if side == "gt" else f"pred_dynamic_{index}"
                        columns[key] = table[name].to_numpy()
    np.savez(tmp_path / "both.npz", **columns)
    figures = [
        SceneFlowEvaluator(*paths).evaluate()
        for paths in (
            (truth, found),
            (tmp_path / "gt.zip", tmp_path / "det.zip"),
            (tmp_path / "both.npz", tmp_path / "both.npz"),
        )
    ]
    assert figures[0] == figures[1]
    assert figures[0]["per_example"][0]["Example"] == "log-a/1.feather"
    for part in ("totals", "bucketed"):
        assert deviation(figures[2][part], figures[0][part]) < 1e-12
    assert "EPE 3-way average" in SceneFlowEvaluator(truth).table(figures[0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"n_examples": np.array(2), "gt_flow_0": np.zeros((5, 3))}, "gt_flow_1 is missing"),
        ({"n_examples": np.array(1), "gt_flow_0": np.zeros((5, 2))}, "no array category_indices_0"),
        ({"gt_flow_0": np.zeros((5, 3))}, "no array n_examples"),
    ],
)
def test_incomplete_arrays_are_named(tmp_path: Path, columns: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **columns)
    with pytest.raises(ValueError, match=message):
        SceneFlowEvaluator(tmp_path / "a.npz").check()
    (tmp_path / "b.zip").write_text("no zip")
    with pytest.raises(ValueError, match="neither a folder, an"):
        SceneFlowEvaluator(tmp_path / "b.zip").check()
