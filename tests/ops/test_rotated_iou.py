"""Overlaps against shapely and against closed forms."""

import math
from fractions import Fraction

import pytest
import shapely
import shapely.affinity
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from equilidar.ops import rotated_iou
from equilidar.ops._registration import reference_of
from equilidar.ops.rotated_iou import axis_aligned_bev_iou, bev_iou, bev_iou_pairs, iou_3d, iou_3d_pairs
from equilidar.structures import Boxes3D
from equilidar.testing import assert_equivariant, assert_op, similarities
from tests.ops.implementations import (
    assert_kernel_equals_reference,
    assert_same_bits_with_any_threads,
    use,
)


def boxes_of(num, seed=0, spread=6.0):
    u = torch.rand(num, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([(u[:, :3] - 0.5) * spread, 0.5 + 4 * u[:, 3:6], (u[:, 6:] - 0.5) * 20], 1)


def box(x=0.0, y=0.0, z=0.0, length=4.0, width=2.0, height=1.5, yaw=0.0, dtype=torch.float64):
    return torch.tensor([[x, y, z, length, width, height, yaw]], dtype=dtype)


def polygon(row):
    x, y, _, length, width, _, yaw = row.double().tolist()
    shape = shapely.box(-length / 2, -width / 2, length / 2, width / 2)
    return shapely.affinity.translate(shapely.affinity.rotate(shape, math.degrees(yaw), (0, 0)), x, y)


def iou_by_shapely(a, b, volume):
    """In the frame of each box of a: far from the origin shapely's own coordinates are too coarse."""
    iou = torch.zeros(len(a), len(b), dtype=torch.float64)
    for i, one in enumerate(a.cpu().double()):
        for j, other in enumerate(b.cpu().double()):
            shift = torch.cat([one[:3], torch.zeros(4, dtype=torch.float64)])
            overlap = polygon(one - shift).intersection(polygon(other - shift)).area
            size_one, size_other = one[3:5].prod(), other[3:5].prod()
            if volume:
                top = min(one[5] / 2, other[2] - one[2] + other[5] / 2)
                bottom = max(-one[5] / 2, other[2] - one[2] - other[5] / 2)
                overlap, size_one, size_other = overlap * max(top - bottom, 0), size_one * one[5], size_other * other[5]
            union = float(size_one + size_other - overlap)
            iou[i, j] = overlap / union if union > 0 else 0
    return iou.to(a.device)


HUGE = torch.tensor([4e6, -1e6, 3e5, 0, 0, 0, 0])

CASES = {
    "empty": (boxes_of(0), boxes_of(0)),
    "one side empty": (boxes_of(3), boxes_of(0)),
    "one box": (boxes_of(1), boxes_of(1, 1)),
    "duplicates": (boxes_of(4).repeat(2, 1), boxes_of(4).repeat(2, 1)),
    "far away": (boxes_of(4), boxes_of(4) + torch.tensor([100.0, 0, 0, 0, 0, 0, 0])),
    "several": (boxes_of(12), boxes_of(12, 1)),
    "huge coordinates": (boxes_of(6) + HUGE, boxes_of(6, 1) + HUGE),
    "no extent": (
        boxes_of(4) * torch.tensor([1, 1, 1, 1, 0, 1, 1]),
        boxes_of(4, 1) * torch.tensor([1, 1, 1, 1, 1, 0, 1]),
    ),
    "non-contiguous": (boxes_of(24)[::2], boxes_of(24, 1).T.contiguous().T[::2]),
}


@pytest.mark.parametrize("volume", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_op(case, dtype, volume, device):
    a, b = (boxes.to(device, dtype) for boxes in CASES[case])
    assert_op(torch.ops.equilidar.rotated_iou.default, [a, b, volume], reference=iou_by_shapely)
    num = min(len(a), len(b))
    assert_op(
        torch.ops.equilidar.rotated_iou_pairs.default,
        [a[:num], b[:num], volume],
        reference=lambda *args: iou_by_shapely(*args).diagonal(),
    )


def aligned_by_shapely(a, b):
    def aligned(row):
        quarter_turns = round(float(row[6]) / (math.pi / 2))
        return polygon(torch.cat([row[:6], torch.tensor([quarter_turns * math.pi / 2], dtype=torch.float64)]))

    pairs = [[(aligned(p), aligned(q)) for q in b.cpu().double()] for p in a.cpu().double()]
    iou = [[p.intersection(q).area / max(p.union(q).area, 1e-6) for p, q in row] for row in pairs]
    return torch.tensor(iou, dtype=torch.float64, device=a.device).view(len(a), len(b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", [case for case in CASES if case != "huge coordinates"])
def test_axis_aligned_op(case, dtype, device):
    a, b = (boxes.to(device, dtype) for boxes in CASES[case])
    assert_op(torch.ops.equilidar.axis_aligned_iou.default, [a, b], reference=aligned_by_shapely)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_boxes_equal_the_reference(dtype, device):
    a, b = boxes_of(150, 3, spread=25).to(device, dtype), boxes_of(170, 4, spread=25).to(device, dtype)
    a[::7, 3:5] *= 10
    b[::11, 3:6] *= 1e-3
    a[:20], a[20:40, :6] = b[:20], b[20:40, :6]
    assert_kernel_equals_reference(torch.ops.equilidar.rotated_iou.default, a, b, True)
    assert_kernel_equals_reference(torch.ops.equilidar.rotated_iou_pairs.default, a, b[: len(a)], False)
    # One comparison decides, at 45 degrees, between two shapes: kernel and reference agree in each bit.
    a[:, 6] = torch.arange(len(a), device=device) * (math.pi / 4)
    op = torch.ops.equilidar.axis_aligned_iou.default
    assert torch.equal(op(a, b), reference_of(op)(a, b))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_odd_numbers_overlap_nothing_and_leave_the_others_alone(value):
    boxes = boxes_of(6)
    clean = bev_iou(boxes, boxes)
    for column in range(7):
        odd = boxes.clone()
        odd[2, column] = value
        iou = iou_3d(odd, boxes) if column in (2, 5) else bev_iou(odd, boxes)
        assert ((iou >= 0) & (iou <= 1)).all()
        others = [0, 1, 3, 4, 5]
        assert column in (2, 5) or torch.equal(iou[others], clean[others])
        assert not math.isnan(value) or (iou[2] == 0).all()
        pairs = iou_3d_pairs(odd, boxes)
        assert ((pairs >= 0) & (pairs <= 1)).all() and (not math.isnan(value) or pairs[2] == 0)


def test_same_bits_with_any_number_of_threads():
    a, b = boxes_of(20000, spread=150), boxes_of(150, 1, spread=150)  # enough for several tasks
    assert_same_bits_with_any_threads(
        lambda: (iou_3d(a, b), bev_iou(a.float(), b.float()), bev_iou_pairs(a, a.flip(0)), axis_aligned_bev_iou(a, b))
    )


def test_matrix_and_pairs_agree():
    a, b = boxes_of(30), boxes_of(30, 1)
    torch.testing.assert_close(bev_iou(a, b).diagonal(), bev_iou_pairs(a, b), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(iou_3d(a, b).diagonal(), iou_3d_pairs(a, b), rtol=1e-12, atol=1e-14)


def test_chunks_of_the_reference_do_not_change_the_result(monkeypatch):
    use("reference", rotated_iou, monkeypatch)
    a, b = boxes_of(20), boxes_of(15, 1)
    expected = iou_3d(a, b)
    monkeypatch.setattr(rotated_iou, "_MAX_PAIRS", 7)
    monkeypatch.setattr(rotated_iou, "_MAX_NEAR_TESTS", 40)
    assert torch.equal(iou_3d(a, b), expected)


@pytest.mark.parametrize("yaw", [0.0, 0.3, math.pi / 2, -7.0, 1e-9])
@pytest.mark.parametrize("size", [(4, 2), (1e-4, 1e-3), (1e4, 1e-2), (2, 2)])
def test_a_box_overlaps_itself_wholly(yaw, size):
    one = box(x=50, y=-30, length=size[0], width=size[1], yaw=yaw)
    torch.testing.assert_close(bev_iou(one, one), torch.ones(1, 1).double(), rtol=0, atol=1e-12)
    turned = one + torch.tensor([0, 0, 0, 0, 0, 0, math.pi], dtype=torch.float64)
    torch.testing.assert_close(iou_3d(one, turned), torch.ones(1, 1).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("yaw", [0.0, 0.7, math.pi / 4])
def test_touching_boxes_overlap_nothing(yaw):
    """Edges that coincide with opposite sense are where clipping by classified corners goes wrong."""
    a = box(yaw=yaw)
    b = box(x=4 * math.cos(yaw), y=4 * math.sin(yaw), yaw=yaw)
    assert float(bev_iou(a, b)) < 1e-14
    assert float(iou_3d(a, box(z=1.5, yaw=yaw))) < 1e-14


def test_hand_computed_overlaps():
    square = box(length=2, width=2)
    # A unit-inradius square and the same turned by 45 degrees meet in a regular octagon: 8 (sqrt 2 - 1).
    octagon = 8 * (math.sqrt(2) - 1)
    diamond = box(length=2, width=2, yaw=math.pi / 4)
    assert float(bev_iou(square, diamond)) == pytest.approx(octagon / (8 - octagon), abs=1e-14)
    assert float(bev_iou(square, box(x=1, y=1, length=2, width=2))) == pytest.approx(1 / 7, abs=1e-14)
    assert float(iou_3d(square, box(z=0.75, length=2, width=2))) == pytest.approx(1 / 3, abs=1e-14)
    assert float(bev_iou(box(length=10, width=10), box(x=2, length=1, width=1, yaw=1.0))) == pytest.approx(0.01)


def test_float32_boxes_far_from_the_origin_lose_nothing():
    near, far = box(yaw=0.5, dtype=torch.float32), box(x=65536, y=65536, yaw=0.5, dtype=torch.float32)
    shift = torch.tensor([1.0, 0.5, 0, 0, 0, 0, 0.25])
    torch.testing.assert_close(bev_iou(far, far + shift), bev_iou(near, near + shift), rtol=1e-6, atol=0)


def test_boxes_without_extent():
    flat = box(width=0.0)
    assert float(bev_iou(flat, flat)) == 0 and float(bev_iou(flat, box())) == 0
    assert float(iou_3d(box(height=0.0), box(height=0.0))) == 0


numbers = st.floats(-3, 3, width=32)
sizes = st.floats(0.0009765625, 8, width=32)
any_box = st.tuples(numbers, numbers, numbers, sizes, sizes, sizes, st.floats(-8, 8, width=32))


def exact_corners(row):
    """Corners in float64, as exact fractions, counter-clockwise."""
    corners = Boxes3D.make(row[:, :3], row[:, 3:6], row[:, 6]).corners()[0, :4, :2].flip(0)
    return [(Fraction(x), Fraction(y)) for x, y in corners.tolist()]


def exact_area(polygon):
    return sum(p[0] * q[1] - p[1] * q[0] for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True)) / 2


def exact_overlap(polygon, clip):
    """Sutherland and Hodgman's clipping in fractions: shapely finds no overlap of boxes that differ by an ulp."""
    for start, stop in zip(clip, clip[1:] + clip[:1], strict=True):

        def side(p, start=start, stop=stop):
            return (stop[0] - start[0]) * (p[1] - start[1]) - (stop[1] - start[1]) * (p[0] - start[0])

        clipped = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            if side(p) >= 0:
                clipped.append(p)
            if side(p) * side(q) < 0:
                t = side(p) / (side(p) - side(q))
                clipped.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        polygon = clipped
    return exact_area(polygon)


def test_exact_clipping_agrees_with_shapely():
    for one, other in zip(boxes_of(30), boxes_of(30, 1), strict=True):
        shared = exact_overlap(exact_corners(one[None]), exact_corners(other[None]))
        assert float(shared) == pytest.approx(polygon(one).intersection(polygon(other)).area, abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(any_box, any_box)
@example((0.0, 0.0, 0.0, 1.0, 7.0, 1.0, 0.876953125), (2.0**-52, 0.0, 0.0, 1.0, 7.0, 1.0, 0.876953125))
def test_any_two_boxes_agree_with_exact_clipping(first, second):
    a, b = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    one, other = exact_corners(a), exact_corners(b)
    shared = exact_overlap(one, other)
    total = exact_area(one) + exact_area(other) - shared
    assert float(bev_iou_pairs(a, b)) == pytest.approx(float(shared / total), abs=1e-9)
    assert float(bev_iou_pairs(b, a)) == pytest.approx(float(bev_iou_pairs(a, b)), abs=1e-11)
    assert float(iou_3d_pairs(b, a)) == pytest.approx(float(iou_3d_pairs(a, b)), abs=1e-11)


def test_overlap_is_invariant_under_similarities():
    a, b = boxes_of(8), boxes_of(8, 1)
    assert_equivariant(
        lambda pair: iou_3d(pair[0].as_tensor(), pair[1].as_tensor()),
        similarities(20),
        inputs=tuple(Boxes3D.make(rows[:, :3], rows[:, 3:6], rows[:, 6]) for rows in (a, b)),
        act=lambda t, pair: tuple(boxes.transformed(t) for boxes in pair),
        tolerance=1e-5,
    )


@settings(max_examples=60, deadline=None)
@given(
    any_box,
    any_box,
    st.floats(-4, 4),
    st.floats(0.1, 10),
    st.booleans(),
    st.tuples(st.floats(-100, 100), st.floats(-100, 100), st.floats(-100, 100)),
)
def test_overlap_of_any_two_boxes_is_invariant_under_similarities(first, second, yaw, scale, mirror, shift):
    a, b = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)

    def moved(box):
        x, y, z, *size, heading = box[0].tolist()
        y, heading = (-y, -heading) if mirror else (y, heading)
        cos, sin = scale * math.cos(yaw), scale * math.sin(yaw)
        center = x * cos - y * sin + shift[0], x * sin + y * cos + shift[1], z * scale + shift[2]
        return torch.tensor([[*center, *(scale * extent for extent in size), heading + yaw]], dtype=torch.float64)

    for function in (bev_iou, iou_3d, bev_iou_pairs, iou_3d_pairs):
        # Shifting rounds coordinates of 100 m; the least extent is a millimetre.
        assert float(function(moved(a), moved(b))) == pytest.approx(float(function(a, b)), abs=1e-8)


def test_axis_aligned_overlap():
    a = torch.cat([box(yaw=0.7), box(yaw=-0.7), box(yaw=math.pi), box(yaw=math.pi / 4), box(yaw=1.7), box(yaw=-1.7)])
    turned = [False, False, False, True, True, True]
    plain, swapped = box(), box(length=2, width=4)
    # Aligned boxes of 4 x 2 and 2 x 4 share 2 x 2 of 12.
    expected = torch.tensor([[1 / 3, 1.0] if t else [1.0, 1 / 3] for t in turned], dtype=torch.float64)
    torch.testing.assert_close(axis_aligned_bev_iou(a, torch.cat([plain, swapped])), expected)
    assert axis_aligned_bev_iou(a[:0], plain).shape == (0, 1)
