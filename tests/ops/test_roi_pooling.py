"""Grid points against corners and hand-made cells; the maximum over neighbours against plain PyTorch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops.points_in_boxes import membership
from equilidar.ops.roi_pooling import neighbor_max, roi_grid_points
from equilidar.structures import Boxes3D
from equilidar.testing import assert_equivariant, assert_op, similarities
from tests.ops.implementations import assert_kernel_equals_reference, assert_same_bits_with_any_threads

ROIS = torch.tensor([[10.0, -5, 1, 6, 3, 1.5, 0], [0, 0, 0, 4, 2, 1, math.pi / 2], [-3, 2, 0.5, 3.9, 1.6, 1.5, -7]])


def test_grid_points_of_a_box_along_x_by_hand():
    points = roi_grid_points(torch.tensor([[10.0, -5, 1, 6, 3, 1.5, 0]]), 3)[0]
    assert points.shape == (27, 3)
    assert points[0].tolist() == [8, -6, 0.5]
    assert points[1].tolist() == [8, -6, 1], "height is fastest"
    assert points[3].tolist() == [8, -5, 0.5]
    assert points[9].tolist() == [10, -6, 0.5], "length is slowest"
    assert points[13].tolist() == [10, -5, 1]
    quarter = roi_grid_points(torch.tensor([[0.0, 0, 0, 6, 3, 1.5, math.pi / 2]]), 3)[0]
    torch.testing.assert_close(quarter[0], torch.tensor([1.0, -2, -0.5]))


def test_grid_points_fill_their_box_alone():
    points = roi_grid_points(ROIS)
    assert points.shape == (3, 216, 3)
    inside = membership(points.flatten(0, 1), ROIS).view(3, 3, 216)
    assert inside[range(3), range(3)].all()
    torch.testing.assert_close(points.mean(1), ROIS[:, :3])
    assert roi_grid_points(ROIS[:0]).shape == (0, 216, 3)


def test_grid_points_move_with_their_box():
    boxes = Boxes3D.make(ROIS[:, :3], ROIS[:, 3:6], ROIS[:, 6])

    def sorted_points(boxes):
        # A mirrored box counts its width from the other side.
        return roi_grid_points(boxes.as_tensor(), 4).view(3, 4, 4, 4, 3)

    def farthest(one, other):
        error = (one - other).norm(dim=-1).amax()
        mirrored = (one - other.flip(2)).norm(dim=-1).amax()
        return float(min(error, mirrored))

    assert_equivariant(
        sorted_points,
        similarities(20),
        inputs=boxes,
        act=lambda t, b: b.transformed(t),
        act_output=lambda t, p: t.apply(p.reshape(-1, 3), torch.tensor([0, p.numel() // 3])).view(p.shape),
        error=farthest,
        tolerance=1e-4,
    )


def test_grid_size_must_be_positive():
    with pytest.raises(ValueError, match="grid_size must be at least 1, got 0"):
        roi_grid_points(ROIS, 0)


def gathered_max(features, rows):
    """Plain PyTorch, one query and channel at a time."""
    values, arguments = [], []
    for row in rows.tolist():
        neighbors = [k for k in row if 0 <= k < len(features)]
        for c in range(features.shape[1]):
            best = max(neighbors, key=lambda k, c=c: float(features[k, c].detach()), default=-1)
            arguments.append(best)
            values.append(features[best, c] if best >= 0 else features.new_zeros(()))
    shape = len(rows), features.shape[1]
    maximum = torch.stack(values).view(shape) if values else features.new_zeros(shape)
    return maximum, torch.tensor(arguments, dtype=torch.int64, device=rows.device).view(shape)


def features_of(num, channels=5, seed=0, levels=None):
    generator = torch.Generator().manual_seed(seed)
    if levels is None:
        return torch.randn(num, channels, generator=generator)
    return torch.randint(-levels, levels, (num, channels), generator=generator).float()


def rows_of(num, neighbors, num_features, seed=1, lowest=-2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(lowest, num_features, (num, neighbors), generator=generator)


CASES = {
    "empty": (features_of(0), rows_of(0, 3, 1)),
    "no features": (features_of(0), rows_of(4, 3, 0)),
    "no queries": (features_of(6), rows_of(0, 3, 6)),
    "no neighbours": (features_of(6), rows_of(4, 0, 6)),
    "no channels": (features_of(6, 0), rows_of(4, 3, 6)),
    "one": (features_of(1, 1), torch.zeros(1, 1, dtype=torch.int64)),
    "all padding": (features_of(6), torch.full((4, 3), -1)),
    "some": (features_of(12), rows_of(9, 4, 12)),
    "duplicates": (features_of(12), rows_of(9, 4, 12)[:, [0, 0, 1, 1]]),
    "out of range": (features_of(6), rows_of(9, 4, 9, lowest=-5)),
    "below zero": (features_of(12).abs().neg() - 1, rows_of(9, 4, 12)),
    "non-contiguous": (features_of(5, 12).T, rows_of(4, 18, 12).T[::2]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_op(case, dtype, device):
    features, rows = CASES[case]
    args = [features.to(device, dtype).requires_grad_(), rows.to(device)]
    if features.numel() == 0 or (rows < 0).all():
        assert_kernel_equals_reference(torch.ops.equilidar.neighbor_max.default, *args)
        maximum = neighbor_max(*args)
        assert torch.equal(maximum, torch.zeros_like(maximum))
        (grad,) = torch.autograd.grad(maximum.sum(), args[0])
        assert torch.equal(grad, torch.zeros_like(features.to(grad)))
        return
    assert_op(torch.ops.equilidar.neighbor_max.default, args, reference=gathered_max)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equal_maxima_the_first_takes_the_gradient(dtype, device):
    features, rows = features_of(40, levels=2).to(device, dtype), rows_of(50, 6, 40).to(device)
    assert_op(torch.ops.equilidar.neighbor_max.default, [features, rows], reference=gathered_max)


def test_gradient_of_many_queries_equals_plain_pytorch(device):
    features = features_of(300, 17).to(device).requires_grad_()
    rows = rows_of(1000, 16, 300, lowest=0).to(device)
    weights = features_of(1000, 17, seed=2).to(device)
    (actual,) = torch.autograd.grad((neighbor_max(features, rows) * weights).sum(), features)
    (expected,) = torch.autograd.grad((features[rows].amax(1) * weights).sum(), features)
    torch.testing.assert_close(actual, expected)


def test_backward_op(device):
    argument = rows_of(20, 5, 8, lowest=-1).to(device)
    assert_op(torch.ops.equilidar.neighbor_max_backward.default, [features_of(20).to(device), argument, 8])
    assert_op(torch.ops.equilidar.neighbor_max_backward.default, [features_of(0).to(device), argument[:0], 3])


number = st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-40])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(number, number), max_size=6), st.lists(st.tuples(*[st.integers(-1, 6)] * 3), max_size=5))
def test_any_numbers_give_what_the_reference_gives(features, rows):
    args = torch.tensor(features).view(-1, 2), torch.tensor(rows, dtype=torch.int64).view(-1, 3)
    assert_kernel_equals_reference(torch.ops.equilidar.neighbor_max.default, *args)


def test_same_bits_with_any_number_of_threads():
    features, rows = features_of(200, 40).requires_grad_(), rows_of(3000, 8, 200)

    def run():
        maximum = neighbor_max(features, rows)
        return maximum.detach(), *torch.autograd.grad((maximum * maximum).sum(), features)

    assert_same_bits_with_any_threads(run)
