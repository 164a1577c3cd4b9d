"""Membership against shapely, and against reference counts."""

import math

import numpy as np
import pytest
import shapely.affinity
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops import points_in_boxes as module
from equilidar.ops.points_in_boxes import membership, points_in_boxes
from equilidar.structures import Boxes3D
from equilidar.structures.offsets import from_lengths, to_batch_index
from equilidar.testing import assert_equivariant, assert_op, similarities
from tests.ops.implementations import (
    IMPLEMENTATIONS,
    assert_kernel_equals_reference,
    assert_same_bits_with_any_threads,
    use,
)


def cloud(num, seed=0):
    return (torch.rand(num, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * 12


def boxes_of(num, seed=1):
    u = torch.rand(num, 7, generator=torch.Generator().manual_seed(seed))
    return torch.cat([(u[:, :3] - 0.5) * 8, 1 + 4 * u[:, 3:6], (u[:, 6:] - 0.5) * 20], 1)


def by_shapely(points, boxes):
    inside = torch.zeros(len(boxes), len(points), dtype=torch.bool)
    for row, (x, y, z, length, width, height, yaw) in enumerate(boxes.tolist()):
        rectangle = shapely.affinity.rotate(
            shapely.box(-length / 2, -width / 2, length / 2, width / 2), math.degrees(yaw), (0, 0)
        )
        # In the box's frame: far from the origin shapely's own coordinates are too coarse.
        flat = shapely.covers(rectangle, shapely.points((points[:, :2].cpu().double() - torch.tensor([x, y])).numpy()))
        inside[row] = torch.from_numpy(np.atleast_1d(flat)) & ((points[:, 2].cpu() - z).abs() <= height / 2)
    return inside


def assign_by_shapely(points, point_offsets, boxes, box_offsets):
    inside = by_shapely(points, boxes)
    inside &= to_batch_index(box_offsets, len(boxes)).cpu()[:, None] == to_batch_index(point_offsets, len(points)).cpu()
    rows = torch.arange(len(boxes))[:, None].expand(-1, len(points))
    far = len(boxes)
    first = torch.where(inside, rows, far).amin(0) if far else torch.zeros(len(points), dtype=torch.int64)
    return torch.where(first == far, -1, first).to(points.device), inside.sum(1).to(points.device)


HUGE = torch.tensor([1e6, -2e6, 5e5, 0, 0, 0, 0])

CASES = {
    "empty": (cloud(0), [0], boxes_of(0), [0]),
    "no boxes": (cloud(9), [4, 5], boxes_of(0), [0, 0]),
    "no points": (cloud(0), [0], boxes_of(4), [4]),
    "one point": (cloud(1) * 0, [1], boxes_of(1) * torch.tensor([0, 0, 0, 1, 1, 1, 1.0]), [1]),
    "empty items": (cloud(90), [40, 0, 50], boxes_of(9), [0, 4, 5]),
    "duplicates": (cloud(30).repeat(2, 1), [60], boxes_of(3).repeat(2, 1), [6]),
    "far away": (cloud(20) + 1000, [20], boxes_of(5), [5]),
    "huge coordinates": (cloud(60) + HUGE[:3], [60], boxes_of(9) + HUGE, [9]),
    "no extent": (cloud(30), [30], boxes_of(4) * torch.tensor([1, 1, 1, 0, 1, 0, 1.0]), [4]),
    "one box over all": (cloud(40), [40], boxes_of(6) * torch.tensor([[1, 1, 1, 1, 1, 1, 1]] * 5 + [[1e6] * 7]), [6]),
    "non-contiguous": (cloud(80)[::2], [20, 20], boxes_of(8)[::2], [2, 2]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_op(case, dtype, device):
    points, point_lengths, boxes, box_lengths = CASES[case]
    args = [points.to(dtype), from_lengths(point_lengths), boxes.to(dtype), from_lengths(box_lengths)]
    args = [arg.to(device) for arg in args]
    assert_op(torch.ops.equilidar.points_in_boxes.default, args, reference=assign_by_shapely)
    assert_op(torch.ops.equilidar.membership.default, args[::2], reference=lambda p, b: by_shapely(p, b).to(p.device))


def test_faces_are_inside():
    box = torch.tensor([[1.0, 2, 3, 4, 2, 1, 0]])
    corners = Boxes3D.make(box[:, :3], box[:, 3:6], box[:, 6]).corners()[0]
    assert membership(corners, box).all()
    assert not membership(corners + (corners - box[0, :3]) * 1e-5, box).any()


def test_chunks_of_the_reference_do_not_change_the_result(monkeypatch):
    use("reference", module, monkeypatch)
    points, boxes = cloud(50), boxes_of(7)
    args = points, from_lengths([20, 30]), boxes, from_lengths([3, 4])
    expected, all_pairs = points_in_boxes(*args), membership(points, boxes)
    monkeypatch.setattr(module, "_MAX_PAIRS", 30)
    first, counts = points_in_boxes(*args)
    assert torch.equal(first, expected[0]) and torch.equal(counts, expected[1])
    assert torch.equal(membership(points, boxes), all_pairs)


def test_membership_moves_with_points_and_boxes():
    points, boxes = cloud(300), boxes_of(10)
    structured = Boxes3D.make(boxes[:, :3], boxes[:, 3:6], boxes[:, 6])
    assert_equivariant(
        lambda pair: membership(pair[0], pair[1].as_tensor()).float(),
        similarities(20),
        inputs=(points, structured),
        act=lambda t, pair: (t.apply(pair[0], from_lengths([len(pair[0])])), pair[1].transformed(t)),
        tolerance=0.0,
    )


def test_batches_must_agree():
    with pytest.raises(ValueError, match="point_offsets is for 2 items and box_offsets for 1"):
        points_in_boxes(cloud(4), from_lengths([2, 2]), boxes_of(1), from_lengths([1]))


def crowd(num_points, num_boxes, dtype, seed=0):
    """A sweep and boxes in two items, as dense as in traffic; some boxes tiny, huge or mirrored."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(num_points, 3, generator=generator, dtype=dtype) * torch.tensor([30.0, 30, 1])
    boxes = torch.rand(num_boxes, 7, generator=generator, dtype=dtype)
    boxes[:, :3] = points[torch.randint(0, num_points, (num_boxes,), generator=generator)]
    boxes[:, 3:6] = torch.tensor([4.5, 2, 1.6]) * (0.5 + boxes[:, 3:6])
    boxes[::17, 3:6] *= 30
    boxes[::19, 3:6] *= 1e-3
    boxes[::23, 3:6] *= -1
    boxes[:, 6] = (boxes[:, 6] - 0.5) * 20
    return (
        points,
        from_lengths([num_points // 3, num_points - num_points // 3]),
        boxes,
        from_lengths([num_boxes // 2, num_boxes - num_boxes // 2]),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_points_and_boxes_equal_the_reference(dtype, device):
    args = [arg.to(device) for arg in crowd(20000, 150, dtype)]
    assert_kernel_equals_reference(torch.ops.equilidar.points_in_boxes.default, *args)
    assert_kernel_equals_reference(torch.ops.equilidar.membership.default, args[0], args[2])


odd = st.sampled_from([0.0, 1.0, -2.0, 1e-30, 3e38, math.inf, -math.inf, math.nan])
number = st.one_of(st.floats(-20, 20, width=32), odd)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[number] * 3), max_size=12), st.lists(st.tuples(*[number] * 7), max_size=6))
def test_any_numbers_give_what_the_reference_gives(points, boxes):
    args = torch.tensor(points).view(-1, 3), torch.tensor(boxes).view(-1, 7)
    assert_kernel_equals_reference(torch.ops.equilidar.membership.default, *args)
    with_offsets = args[0], from_lengths([0, len(points)]), args[1], from_lengths([0, len(boxes)])
    assert_kernel_equals_reference(torch.ops.equilidar.points_in_boxes.default, *with_offsets)


def test_same_bits_with_any_number_of_threads():
    args = crowd(600_000, 40, torch.float32)
    assert_same_bits_with_any_threads(lambda: (*points_in_boxes(*args), membership(args[0], args[2])))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_points_in_boxes_reproduce_oracle(oracles, implementation, monkeypatch):
    use(implementation, module, monkeypatch)
    paths = sorted((oracles / "point_ops").glob("points_in_boxes_*.npz"))
    if not paths:
        pytest.skip("no points_in_boxes_*.npz")
    for path in paths:
        data = np.load(path)
        points, boxes = torch.from_numpy(data["points"]), torch.from_numpy(data["boxes"])
        expected = np.unpackbits(data["inside_packed"], axis=1, count=len(boxes)).astype(bool)
        np.testing.assert_array_equal(membership(points, boxes).T, expected)
        first, counts = points_in_boxes(points, from_lengths([len(points)]), boxes, from_lengths([len(boxes)]))
        np.testing.assert_array_equal(first, data["first_box"])
        np.testing.assert_array_equal(counts, data["count_per_box"])
        np.testing.assert_array_equal(membership(points, boxes).sum(0), data["boxes_per_point"])
