"""Jittered scores: what they change, and that the cliff of R11 is found where it is known to be."""

from collections.abc import Mapping

import torch

from equilidar.evaluation.simulated import evaluate_sweeps
from equilidar.report.score_jitter import jittered, measure_jitter
from equilidar.structures import Boxes3D, Detections, ObjectAnnotations


def _boxes(num: int, shift: float = 0.0) -> Boxes3D:
    center = torch.zeros(num, 3)
    center[:, 0] = torch.arange(num) * 10.0 + shift
    return Boxes3D.make(center, torch.tensor([[4.0, 2.0, 1.5]]).repeat(num, 1), torch.zeros(num))


def _world(num: int, found: int, lowest: int) -> tuple[list[ObjectAnnotations], dict[str, Detections]]:
    """`num` objects of which `found` are found; `lowest` of these with scores just above the threshold of 0.1."""
    truth = ObjectAnnotations(
        _boxes(num), torch.zeros(num, dtype=torch.int64), torch.ones(num).long(), torch.zeros(num)
    )
    scores = torch.linspace(0.9, 0.5, found)
    scores[found - lowest :] = torch.linspace(0.104, 0.1, lowest)
    return [truth], {"a/b/0": Detections(_boxes(num).select(torch.arange(num) < found), scores)}


def _score(truth: list[ObjectAnnotations]):
    def score(detections: Mapping[str, Detections]) -> dict[str, dict]:
        return evaluate_sweeps(truth, list(detections.values()), ("Car",), {"Car": (0.7,)})

    return score


def test_noise_is_seeded_small_and_cut_at_the_lowest_score() -> None:
    _, detections = _world(100, 80, 8)
    first, again, other = (jittered(detections, 0.1, seed)["a/b/0"] for seed in (1, 1, 2))
    assert torch.equal(first.scores, again.scores) and not torch.equal(first.scores[:50], other.scores[:50])
    assert 72 <= len(first.scores) < 80 and len(first.boxes) == len(first.scores)
    assert float(first.scores.min()) >= 0.1
    sure = detections["a/b/0"].scores[:72]
    assert 0.005 < (first.scores[:72] - sure).abs().mean() < 0.05
    assert torch.allclose(jittered(detections, 0.0, 1)["a/b/0"].scores[:70], sure[:70])


def test_noise_does_not_depend_on_the_order_of_sweeps() -> None:
    _, detections = _world(40, 30, 3)
    two = {"a/b/1": detections["a/b/0"], "a/b/0": detections["a/b/0"]}
    one = jittered(two, 0.1, 0)
    other = jittered(dict(reversed(two.items())), 0.1, 0)
    assert all(torch.equal(one[key].scores, other[key].scores) for key in two)


def test_r11_falls_off_a_cliff_where_r40_takes_a_step() -> None:
    truth, detections = _world(200, 160, 8)  # recall 0.8: the unsure ones decide whether position 0.8 is reached
    found = measure_jitter(_score(truth), detections)["spread"]["car"]["3d@0.7"]
    assert 8.5 < found["AP_R11"][1] < 9.5  # one of 11 positions
    assert 0.5 < found["AP_R40"][1] <= 6 < found["AP_R11"][1]


def test_sure_detections_have_no_cliff() -> None:
    truth, detections = _world(200, 160, 0)
    measured = measure_jitter(_score(truth), detections, repeats=3)
    assert (measured["repeats"], measured["sigma"]) == (3, 0.1)
    # Only the very last detection can fall below the threshold.
    assert measured["spread"]["car"]["bev@0.7"]["AP_R40"][0] <= 2.5


def test_nothing_found_is_no_spread() -> None:
    truth, _ = _world(10, 5, 0)
    nothing = {"a/b/0": Detections(Boxes3D.empty(), torch.zeros(0))}
    assert measure_jitter(_score(truth), nothing, repeats=2)["spread"]["car"]["3d@0.7"]["AP_R11"] == [0, 0, 0]
