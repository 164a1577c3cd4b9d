"""Overlaps against shapely, against closed forms, and against reference pairs."""

import math
from fractions import Fraction

import numpy as np
import pytest
import shapely
import shapely.affinity
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from equilidar.ops import rotated_iou
from equilidar.ops.rotated_iou import axis_aligned_bev_iou, bev_iou, bev_iou_pairs, iou_3d, iou_3d_pairs
from equilidar.structures import Boxes3D
from equilidar.testing import assert_equivariant, assert_op, similarities


def boxes_of(num, seed=0, spread=6.0):
    u = torch.rand(num, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([(u[:, :3] - 0.5) * spread, 0.5 + 4 * u[:, 3:6], (u[:, 6:] - 0.5) * 20], 1)


def box(x=0.0, y=0.0, z=0.0, length=4.0, width=2.0, height=1.5, yaw=0.0, dtype=torch.float64):
    return torch.tensor([[x, y, z, length, width, height, yaw]], dtype=dtype)


def polygon(row):
    x, y, _, length, width, _, yaw = row.double().tolist()
    shape = shapely.box(-length / 2, -width / 2, length / 2, width / 2)
    return shapely.affinity.translate(shapely.affinity.rotate(shape, math.degrees(yaw), (0, 0)), x, y)


def overlap_by_shapely(a, b):
    one, other = [polygon(row) for row in a], [polygon(row) for row in b]
    areas = [[p.intersection(q).area for q in other] for p in one]
    return torch.tensor(areas, dtype=torch.float64, device=a.device).view(len(a), len(b))


CASES = {
    "empty": (boxes_of(0), boxes_of(0)),
    "one side empty": (boxes_of(3), boxes_of(0)),
    "one box": (boxes_of(1), boxes_of(1, 1)),
    "duplicates": (boxes_of(4).repeat(2, 1), boxes_of(4).repeat(2, 1)),
    "far away": (boxes_of(4), boxes_of(4) + torch.tensor([100.0, 0, 0, 0, 0, 0, 0])),
    "single precision": (boxes_of(12).float(), boxes_of(12, 1).float()),
    "non-contiguous": (boxes_of(24)[::2], boxes_of(24, 1).T.contiguous().T[::2]),
}


@pytest.mark.parametrize("case", CASES)
def test_op(case, device):
    a, b = (boxes.to(device) for boxes in CASES[case])
    assert_op(torch.ops.equilidar.rotated_overlap.default, [a, b], reference=overlap_by_shapely)
    num = min(len(a), len(b))
    assert_op(
        torch.ops.equilidar.rotated_overlap_pairs.default,
        [a[:num], b[:num]],
        reference=lambda one, other: overlap_by_shapely(one, other).diagonal(),
    )


def test_matrix_and_pairs_agree():
    a, b = boxes_of(30), boxes_of(30, 1)
    torch.testing.assert_close(bev_iou(a, b).diagonal(), bev_iou_pairs(a, b), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(iou_3d(a, b).diagonal(), iou_3d_pairs(a, b), rtol=1e-12, atol=1e-14)


def test_chunks_do_not_change_the_result(monkeypatch):
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


def test_axis_aligned_overlap():
    a = torch.cat([box(yaw=0.7), box(yaw=-0.7), box(yaw=math.pi), box(yaw=math.pi / 4), box(yaw=1.7), box(yaw=-1.7)])
    turned = [False, False, False, True, True, True]
    plain, swapped = box(), box(length=2, width=4)
    # Aligned boxes of 4 x 2 and 2 x 4 share 2 x 2 of 12.
    expected = torch.tensor([[1 / 3, 1.0] if t else [1.0, 1 / 3] for t in turned], dtype=torch.float64)
    torch.testing.assert_close(axis_aligned_bev_iou(a, torch.cat([plain, swapped])), expected)
    assert axis_aligned_bev_iou(a[:0], plain).shape == (0, 1)


def iou_files(oracles):
    found = sorted((oracles / "rotated_boxes").glob("iou_*.npz"))
    if not found:
        pytest.skip("no iou_*.npz")
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_overlaps_reproduce_oracle(oracles, dtype):
    tolerance = 1e-9 if dtype == torch.float64 else 1e-6
    for path in iou_files(oracles):
        data = np.load(path)
        a, b = (torch.from_numpy(data[f"boxes_{name}"]).to(dtype) for name in "ab")
        for function, expected in ((bev_iou_pairs, data["iou_bev"]), (iou_3d_pairs, data["iou_3d"])):
            error = np.abs(function(a, b).double().numpy() - expected)
            kinds = [str(data["kind_names"][kind]) for kind in data["kind"][error > tolerance]]
            assert not kinds, f"{path.name}: {function.__name__} is off by {error.max():.2e}, kinds {set(kinds)}"
        area = torch.ops.equilidar.rotated_overlap_pairs(a, b).numpy()
        np.testing.assert_allclose(area, data["inter_area"], rtol=1e-9, atol=1e-9)


def test_matrix_reproduces_oracle(oracles):
    for path in iou_files(oracles):
        data = np.load(path)
        a, b = (torch.from_numpy(data[f"boxes_{name}"][:500]).double() for name in "ab")
        np.testing.assert_allclose(bev_iou(a, b).diagonal(), data["iou_bev"][:500], rtol=0, atol=1e-9)
        np.testing.assert_allclose(iou_3d(a, b).diagonal(), data["iou_3d"][:500], rtol=0, atol=1e-9)
