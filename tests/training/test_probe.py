"""Probes: cells get the class of the object on them, frozen means frozen, figures by hand, rare classes are found."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.backbones import VoxelBackBone8x
from equilidar.data.simulator import SimulatedSweeps
from equilidar.structures import BEVCells, Boxes3D, GridSpec, SensorContract
from equilidar.training.probe import (
    LinearProbe,
    NeighbourProbe,
    check_points,
    format_probe,
    fresh_copy,
    judge,
    probe_backbone,
)
from equilidar.training.probe_cells import ProbeCells, collect_cells, label_cells, split_by_sequence

GRID = GridSpec.from_range([0.0, -12.8, -3.0, 25.6, 12.8, 1.0], [0.2, 0.2, 0.1])
PROBES = [LinearProbe(), NeighbourProbe()]


def all_cells(batch_size: int = 1) -> BEVCells:
    shape = (16, 16)
    index = torch.cartesian_prod(torch.arange(batch_size), torch.arange(16), torch.arange(16))
    return BEVCells(index, torch.zeros(len(index), 1), GRID, shape, (8, 8), batch_size)


@given(
    x=st.floats(4, 20),
    y=st.floats(-9, 9),
    yaw=st.floats(-math.pi, math.pi),
    length=st.floats(2, 8),
    width=st.floats(2, 5),
)
@settings(max_examples=40, deadline=None)
def test_cells_whose_centre_a_box_covers_have_its_class(x: float, y: float, yaw: float, length: float, width: float):
    size = torch.tensor([[length, width, 1.5]])
    box = Boxes3D.make(torch.tensor([[x, y, -1.0]]), size, torch.tensor([yaw]), label=torch.tensor([1]))
    cells = all_cells()
    labels = label_cells(cells, box)
    centers = (cells.coords[:, [2, 1]] + 0.5) * 1.6 + torch.tensor([0.0, -12.8])
    points = torch.cat([centers, torch.full((len(centers), 1), -1.0)], 1)
    near = box.contains(points, margin=1e-4)[0] != box.contains(points, margin=-1e-4)[0]
    assert torch.equal((labels == 2)[~near], box.contains(points)[0][~near])
    assert set(labels.tolist()) <= {0, 2}


def test_of_two_boxes_the_nearer_counts_and_items_keep_their_own():
    centers, sizes = torch.tensor([[8.0, 0.0, 0.0], [11.2, 0.0, 0.0]]), torch.tensor([[8.0, 4.0, 2.0]]).repeat(2, 1)
    both = Boxes3D.make(centers, sizes, torch.zeros(2), label=torch.tensor([0, 1]))
    batch = Boxes3D.collate([both, Boxes3D.empty()])
    cells = all_cells(2)
    labels = label_cells(cells, batch)
    row = (cells.coords[:, 0] == 0) & (cells.coords[:, 1] == 8)
    assert labels[row].tolist()[3:9] == [1, 1, 1, 2, 2, 2]  # centres 5.6, 7.2, 8.8 and 10.4, 12.0, 13.6
    assert not labels[cells.coords[:, 0] == 1].any()


def test_split_shares_no_sequence_and_covers_all():
    keys = [f"set/{sequence:02d}/{frame}" for sequence in range(9) for frame in range(3)]
    train, test = split_by_sequence(keys, 0.25, seed=1)
    assert sorted(train + test) == list(range(27)) and len(test) == 6
    assert not {keys[i].split("/")[1] for i in train} & {keys[i].split("/")[1] for i in test}
    assert split_by_sequence(keys, 0.25, seed=1) == (train, test) != split_by_sequence(keys, 0.25, seed=2)
    with pytest.raises(ValueError, match=r"all 3 sweeps are of one sequence"):
        split_by_sequence(keys[:3], 0.25, seed=0)
    with pytest.raises(ValueError, match=r"held_out must lie between 0 and 1, got 1\.0"):
        split_by_sequence(keys, 1.0, seed=0)


def test_figures_by_hand():
    labels, predicted = torch.tensor([0, 0, 0, 1, 1, 3]), torch.tensor([0, 0, 1, 1, 0, 0])
    figures = judge(predicted, labels, ("background", "car", "van", "bike"))
    assert figures.recall == pytest.approx({"background": 2 / 3, "car": 1 / 2, "bike": 0.0})
    assert figures.iou == pytest.approx({"background": 2 / 5, "car": 1 / 3, "bike": 0.0})
    assert figures.balanced_accuracy == pytest.approx(7 / 18) and figures.mean_iou == pytest.approx(11 / 45)
    assert figures.support == {"background": 3, "car": 2, "bike": 1}
    assert "mIoU" in format_probe({"checkpoint": figures, "scratch": figures})


def clouds(num: int, seed: int) -> ProbeCells:
    """Three well separated classes, the background a hundred times as frequent."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.zeros(100 * num, dtype=torch.int64), torch.ones(num).long(), torch.full((num,), 2)])
    means = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 1.0], [0.0, 4.0, -1.0]])
    features = means[labels] + 0.5 * torch.randn(len(labels), 3, generator=generator)
    return ProbeCells(features, labels, torch.zeros_like(labels))


@pytest.mark.parametrize("probe", PROBES, ids=["linear", "knn"])
def test_rare_classes_are_found_among_much_background(probe):
    train, test = clouds(30, 0), clouds(20, 1)
    predicted = probe(train, 4, test.features, torch.Generator().manual_seed(0))
    figures = judge(predicted, test.labels, ("background", "a", "b", "never seen"))
    assert figures.balanced_accuracy > 0.97
    assert 3 not in predicted.tolist(), "a class that was never shown is not predicted"
    again = probe(train, 4, test.features, torch.Generator().manual_seed(0))
    assert torch.equal(predicted, again)


@pytest.mark.parametrize("probe", PROBES, ids=["linear", "knn"])
def test_features_without_information_give_chance(probe):
    train, test = clouds(200, 0), clouds(200, 1)
    blind = [torch.randn(cells.features.shape, generator=torch.Generator().manual_seed(5 + i)) for i, cells in
             enumerate((train, test))]  # fmt: skip
    predicted = probe(ProbeCells(blind[0], train.labels, train.sweep), 3, blind[1], torch.Generator().manual_seed(0))
    assert judge(predicted, test.labels, ("background", "a", "b")).balanced_accuracy == pytest.approx(1 / 3, abs=0.1)


@pytest.fixture(scope="module")
def streets() -> SimulatedSweeps:
    return SimulatedSweeps(
        {"azimuth_steps": 360, "beam_stride": 4}, num_sequences=4, frames_per_sequence=2, frame_step=20
    )


def test_frozen_means_that_nothing_moves(streets: SimulatedSweeps):
    torch.manual_seed(0)
    backbone = VoxelBackBone8x(GRID, 4, width=0.25).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    state = torch.random.get_rng_state()
    cells = collect_cells(backbone, streets, batch_size=3)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not cells.features.requires_grad and all(p.grad is None for p in backbone.parameters())
    assert torch.equal(state, torch.random.get_rng_state()) and backbone.training
    one = collect_cells(backbone, streets, batch_size=1)
    torch.testing.assert_close(one.features, cells.features, atol=1e-5, rtol=1e-4)  # eval mode: no batch statistics
    assert torch.equal(one.labels, cells.labels) and set(cells.sweep.tolist()) == set(range(len(streets)))
    assert bool((cells.labels > 0).any())


def test_a_probe_compares_a_backbone_with_the_same_one_untrained(streets: SimulatedSweeps):
    torch.manual_seed(7)
    backbone = VoxelBackBone8x(GRID, 4, width=0.25)
    scratch = [fresh_copy(backbone, seed=3) for _ in range(2)]
    states = [dict(network.state_dict()) for network in scratch]  # pyright: ignore[reportAttributeAccessIssue]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["conv1.0.0.weight"], backbone.state_dict()["conv1.0.0.weight"])
    figures = probe_backbone(backbone, streets, LinearProbe(per_class=500), seed=3, batch_size=4)
    assert set(figures) == {"checkpoint", "scratch"}
    assert all(1 / 4 < own.balanced_accuracy <= 1 for own in figures.values())
    assert figures["checkpoint"].support == figures["scratch"].support


def test_other_points_than_the_backbone_knows_are_refused(streets: SimulatedSweeps):
    check_points(streets.contract, streets)
    with pytest.raises(ValueError, match=r"trained on points of .*the dataset gives"):
        check_points(SensorContract(("intensity",), (255.0,), "sensor"), streets)
