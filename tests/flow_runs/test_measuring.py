"""Figures of flow estimators: the simulator's truth, what estimators may see, which points count."""

import math

import numpy as np
import pytest
import torch

from equilidar.data.labelled_pairs import labelled_pairs
from equilidar.data.simulator import SimulatedPairs
from equilidar.data.simulator.labelled_pairs import SimulatedLabelledPairs
from equilidar.flow import ExactFlow, RigidFlow, ZeroFlow
from equilidar.flow_runs.comparison import FlowComparison
from equilidar.flow_runs.measuring import EvaluatedPoints, measure
from equilidar.structures import FlowField, LabelledPair, SweepPairBatch

from ..flow.pairs import moved, rigid_matrix, sweep_pair

SENSOR = {"name": "hdl64e", "azimuth_steps": 360, "beam_stride": 4}
KEYS = [
    "epe_three_way", "epe_foreground_dynamic", "epe_foreground_static", "epe_background_static", "bucket_dynamic",
    "accuracy_strict", "accuracy_relaxed", "seconds_per_pair",
]  # fmt: skip


class Truth:
    """One pair of a static lattice, a parked and a moving cube, and a patch of ground; 1 m by the ego in between."""

    name, pairs = "truth", None
    keys = ("truth/0->truth/1",)

    def __init__(self) -> None:
        motion = rigid_matrix(0.0, (-1.0, 0.0, 0.0))
        cube = torch.cartesian_prod(*[torch.arange(3.0)] * 3)
        parts = [cube + 1, cube + 10, cube - 10, cube * 0.1 + 20, cube + torch.tensor([60.0, 0, 0])]
        number = torch.arange(5).repeat_interleave(27)
        source = torch.cat(parts)
        rest = moved(source, motion) - source
        own = torch.zeros_like(source)
        own[number == 2] = torch.tensor([0.6, 0.8, 0.0])
        self.pair = LabelledPair(
            sweep_pair(source, source + rest + own, motion, flow=rest + own),
            rest,
            number == 2,
            torch.where((number == 1) | (number == 2), 19, 0),
            torch.where((number == 1) | (number == 2), number, -1),
            number == 3,
        )

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> LabelledPair:
        return self.pair


def test_figures_are_those_computed_by_hand():
    found = measure({"rigid": RigidFlow(), "zero": ZeroFlow()}, Truth(), [0], EvaluatedPoints())
    rigid, zero = found["rigid"].summary(), found["zero"].summary()
    assert list(rigid) == KEYS
    assert rigid["epe_foreground_dynamic"] == pytest.approx(1.0, abs=1e-5)
    assert rigid["epe_foreground_static"] == rigid["epe_background_static"] == pytest.approx(0.0, abs=1e-5)
    assert rigid["epe_three_way"] == pytest.approx(1 / 3, abs=1e-5)
    assert rigid["bucket_dynamic"] == pytest.approx(1.0, abs=1e-5)
    assert rigid["accuracy_strict"] == rigid["accuracy_relaxed"] == pytest.approx(2 / 3)
    # (0.6 - 1, 0.8): 0.894 m is what the mover moves in the sensor's frame.
    assert zero["epe_foreground_dynamic"] == pytest.approx(math.hypot(0.4, 0.8), abs=1e-5)
    assert zero["epe_background_static"] == pytest.approx(1.0, abs=1e-5)
    assert found["rigid"].num_points == 3 * 27 and found["rigid"].moving == [27]
    assert found["rigid"].instances.mean_error(True) == pytest.approx(1.0, abs=1e-5)
    assert found["zero"].instances.mean_error(False) == pytest.approx(1.0, abs=1e-5)


def test_ground_and_distance_decide_what_counts():
    def number(**settings) -> int:
        return measure({"zero": ZeroFlow()}, Truth(), [0], EvaluatedPoints(**settings))["zero"].num_points

    assert (number(), number(ground=True), number(extent=100.0)) == (81, 108, 108)
    with pytest.raises(ValueError, match="none of the 1 pairs has a point that counts"):
        number(extent=0.1)
    with pytest.raises(ValueError, match=r"points\.extent must be positive"):
        EvaluatedPoints(extent=0.0)


def test_estimators_see_no_truth_unless_they_are_from_labels():
    seen = []

    class Curious:
        name = "curious"

        def __init__(self, from_labels: bool) -> None:
            self.from_labels = from_labels

        def __call__(self, batch: SweepPairBatch) -> FlowField:
            seen.append(batch.flow is not None)
            return ZeroFlow()(batch)

    measure({"a": Curious(False), "b": Curious(True)}, Truth(), [0], EvaluatedPoints())
    assert seen == [False, False, True, True]  # each sees its first pair twice


def test_where_no_object_moves_the_figures_are_none_and_the_table_a_dash():
    truth = Truth()
    truth.pair.dynamic[:] = False
    truth.pair.pair.flow = truth.pair.rest
    comparison = FlowComparison({"rigid": RigidFlow()}, truth, EvaluatedPoints())
    summary = comparison.summaries()["rigid"]
    assert summary["epe_foreground_dynamic"] is None and summary["epe_three_way"] is None
    assert summary["epe_background_static"] == pytest.approx(0.0, abs=1e-6)
    assert " - " in comparison.table() and "moving object" not in comparison.table()


def test_table_and_pictures_show_what_was_measured(tmp_path):
    comparison = FlowComparison({"rigid": RigidFlow(), "exact": ExactFlow()}, Truth(), EvaluatedPoints(), num_pairs=1)
    table = comparison.table()
    assert "1 pairs, 81 points that count, 27 of them moving" in table
    assert "regular_vehicle" in table and "mean of 1 objects" in table
    (picture,) = comparison.save_pictures(tmp_path, 3)
    assert picture.stat().st_size > 10_000
    for wrong in (0, 2):
        with pytest.raises(ValueError, match=r"num_pairs must lie in 1\.\.1"):
            FlowComparison({"rigid": RigidFlow()}, Truth(), EvaluatedPoints(), num_pairs=wrong)


@pytest.fixture(scope="module", params=[False, True], ids=["still", "rolling"])
def simulated(request) -> list[LabelledPair]:
    scene = SimulatedPairs(SENSOR, 3, 2, seed=7, frame_step=6, rolling_shutter=request.param)
    pairs = SimulatedLabelledPairs(scene)
    return [pairs[index] for index in range(len(pairs))]


def test_rest_of_the_simulator_is_the_ego_motion(simulated):
    for labelled in simulated:
        rigid = RigidFlow()(SweepPairBatch.collate([labelled.pair])).flow
        off = (labelled.rest - rigid).norm(dim=1).numpy()
        if "time" in labelled.pair.source.contract.channels:
            # Half a turn of driving, or of turning at a distance, lies between capture and reference time.
            assert off.max() > 0.05
            near = labelled.pair.source.xyz.norm(dim=1).numpy() < 20
            assert np.median(off[near]) < 1.0
        else:
            assert off.max() < 1e-3


def test_what_moves_in_the_simulator_is_told_by_its_own_motion(simulated):
    dynamic = 0
    for labelled in simulated:
        assert labelled.pair.flow is not None
        own = (labelled.pair.flow - labelled.rest).norm(dim=1)
        background = labelled.category == 0
        assert own[background].max() < 1e-4 and not labelled.dynamic[background].any()
        assert (labelled.instance[background] == -1).all() and (labelled.instance[~background] >= 0).all()
        assert labelled.ground is not None and not labelled.ground[~background].any()
        assert own[labelled.dynamic].min() > 0.02
        dynamic += int(labelled.dynamic.sum())
    assert dynamic > 50


def test_the_dataset_decides_where_the_truth_is_from():
    pairs = SimulatedPairs(SENSOR, 1, 1, seed=7)
    assert labelled_pairs(pairs).keys == pairs.keys

    class Other:
        name = "other"

    with pytest.raises(ValueError, match="dataset other has no true flow"):
        labelled_pairs(Other())
