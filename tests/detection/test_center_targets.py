import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.detection.center_predictions import CenterLayout
from equilidar.detection.center_targets import CenterAssignment, CenterTargets, gaussian_radius
from equilidar.structures import Boxes3D, GridSpec

from .reference_centers import radius_of, targets_of_head

# Neither square nor centered, and the cells are no squares either.
GRID = GridSpec.from_range([-6.4, 3.2, -3, 12.8, 12.8, 1], [0.1, 0.05, 0.1])
TASKS = (("car",), ("bus", "trailer"), ("pedestrian",))
LAYOUT = CenterLayout(GRID, (24, 24), TASKS, has_velocity=True)
LOW, CELL = np.array(GRID.low[:2]), np.array([0.8, 0.4])


def random_boxes(lengths: list[int], seed: int, margin: float = 0.0) -> Boxes3D:
    generator = torch.Generator().manual_seed(seed)
    num = sum(lengths)
    low, high = torch.tensor(GRID.low) - margin, torch.tensor(GRID.high) + margin
    return Boxes3D.make(
        low + (high - low) * torch.rand(num, 3, generator=generator),
        torch.exp(torch.randn(num, 3, generator=generator)) + 0.2,
        7 * torch.rand(num, generator=generator) - 3.5,
        label=torch.randint(-1, 4, (num,), generator=generator),
        velocity=torch.randn(num, 3, generator=generator),
        offsets=torch.tensor([0, *np.cumsum(lengths)]),
    )


def as_rows(boxes: Boxes3D) -> np.ndarray:
    return torch.cat([boxes.as_tensor(), boxes.velocity[:, :2], boxes.label[:, None] + 1.0], 1).double().numpy()


def assert_as_reference(targets: CenterTargets, boxes: Boxes3D) -> None:
    first = 0
    for task, names in enumerate(TASKS):
        classes = list(range(first + 1, first + 1 + len(names)))
        for item, truth in enumerate(boxes.split()):
            expected = targets_of_head(as_rows(truth), classes, LOW, CELL, LAYOUT.shape)
            heatmap = targets.heatmap[item, first : first + len(names)]
            np.testing.assert_allclose(heatmap.numpy(), expected["heatmap"], atol=1e-6)
            rows = (targets.item == item) & (targets.task == task)
            count = int(expected["masks"].sum())
            assert int(rows.sum()) == count
            np.testing.assert_array_equal(targets.cell[rows].numpy(), expected["inds"][:count])
            np.testing.assert_allclose(targets.codes[rows].numpy(), expected["boxes"][:count], atol=1e-4)
        first += len(names)


@pytest.mark.parametrize("seed", range(8))
def test_targets_are_those_of_loops(seed: int) -> None:
    boxes = random_boxes([5, 0, 9, 1], seed)
    assert_as_reference(CenterAssignment()(LAYOUT, boxes), boxes)


def test_boxes_outside_are_learned_at_the_border() -> None:
    boxes = random_boxes([20], 3, margin=4.0)
    assert not bool(GRID.contains(boxes.center).all())
    assert_as_reference(CenterAssignment()(LAYOUT, boxes), boxes)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.125, 60, width=32), st.floats(0.125, 60, width=32), st.sampled_from([0.1, 0.3, 0.5, 0.7]))
def test_radius_by_its_formulas(length: float, width: float, overlap: float) -> None:
    got = gaussian_radius(torch.tensor([[length, width]], dtype=torch.float64), overlap)
    assert got.item() == pytest.approx(radius_of(length, width, overlap), rel=1e-9)


def test_two_of_a_class_in_one_cell_are_one_center_and_two_boxes() -> None:
    center = torch.tensor([[0.1, 4.1, 0.0], [0.2, 4.2, 0.5], [0.1, 4.1, 0.0]])
    boxes = Boxes3D.make(center, torch.ones(3, 3), torch.zeros(3), label=torch.tensor([0, 0, 1]))
    targets = CenterAssignment()(LAYOUT, boxes)
    assert (targets.heatmap == 1).sum((0, 2, 3)).tolist() == [1, 1, 0, 0]
    assert targets.cell.tolist() == [2 * 24 + 8] * 3 and targets.task.tolist() == [0, 0, 1]
    assert targets.codes[:, 8:].isnan().all()  # velocities that nobody gave


def test_nothing_to_find() -> None:
    for boxes in (Boxes3D.empty(2), random_boxes([3, 2], 0)):
        boxes.label[:] = -1
        targets = CenterAssignment()(LAYOUT, boxes)
        assert targets.heatmap.shape == (2, 4, 24, 24) and targets.heatmap.sum() == 0
        assert len(targets.item) == 0 and targets.codes.shape == (0, 10)


def test_more_boxes_than_any_table_holds_are_all_kept() -> None:
    boxes = random_boxes([3500], 1)
    targets = CenterAssignment()(LAYOUT, boxes)
    assert targets.task.bincount().min() > 500
    assert len(targets.item) == int((boxes.label >= 0).sum())


def test_a_nonsensical_size_neither_hangs_nor_fills_the_memory() -> None:
    boxes = Boxes3D.make(torch.tensor([[0.0, 8, 0]]), torch.full((1, 3), 1e30), torch.zeros(1))
    targets = CenterAssignment()(LAYOUT, boxes)
    assert targets.heatmap.isfinite().all() and targets.heatmap[0, 0].min() > 0.9


def test_gaussians_move_with_their_boxes() -> None:
    """By whole cells, away from the border."""
    still = Boxes3D.make(torch.tensor([[0.1, 6.1, 0]]), torch.tensor([[1.9, 0.9, 1.5]]), torch.tensor([0.7]))
    there = Boxes3D.make(still.center + torch.tensor([2 * 0.8, 3 * 0.4, 0]), still.size, still.yaw)
    one, other = (CenterAssignment()(LAYOUT, boxes) for boxes in (still, there))
    torch.testing.assert_close(other.heatmap, one.heatmap.roll((3, 2), (2, 3)))
    torch.testing.assert_close(other.codes[:, :8], one.codes[:, :8], atol=1e-5, rtol=0)


def test_impossible_settings_and_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="overlap must lie between 0 and 1"):
        CenterAssignment(overlap=1.0)
    with pytest.raises(ValueError, match=r"\(192, 192\) .* no multiple of \(24, 25\)"):
        CenterLayout(GRID, (24, 25), TASKS, has_velocity=False)


@given(st.floats(-20, 20), st.floats(-20, 20))
def test_cells_and_metres_are_inverse(x: float, y: float) -> None:
    xy = torch.tensor([[x, y]], dtype=torch.float64)
    torch.testing.assert_close(LAYOUT.to_metres(LAYOUT.to_cells(xy)), xy)
    corner = torch.tensor([GRID.low[:2], GRID.high[:2]], dtype=torch.float64)
    torch.testing.assert_close(LAYOUT.to_cells(corner), torch.tensor([[0, 0], [24, 24]], dtype=torch.float64))
    assert math.isclose(float(LAYOUT.extent_in_cells(xy)[0, 0]), x / 0.8, abs_tol=1e-9)
