import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.detection.roi_frame import decode_in_roi, encode_in_roi, to_roi_frame
from equilidar.ops.roi_pooling import roi_grid_points

SEEDS = st.integers(0, 2**31)


def random_boxes(generator: torch.Generator, num: int, spread: float = 30.0) -> torch.Tensor:
    center = (torch.rand(num, 3, generator=generator) - 0.5) * spread
    size = 0.5 + 4 * torch.rand(num, 3, generator=generator)
    return torch.cat([center, size, (torch.rand(num, 1, generator=generator) - 0.5) * 20], 1).double()


def reference_encode(box: np.ndarray, roi: np.ndarray) -> np.ndarray:
    """Straight from the definition, for one pair: move, turn back, flip where the headings are apart, divide."""
    dx, dy, dz = box[:3] - roi[:3]
    along = dx * math.cos(roi[6]) + dy * math.sin(roi[6])
    across = -dx * math.sin(roi[6]) + dy * math.cos(roi[6])
    turn = (box[6] - roi[6]) % (2 * math.pi)
    if math.pi / 2 < turn < 3 * math.pi / 2:
        turn = (turn + math.pi) % (2 * math.pi)
    if turn > math.pi:
        turn -= 2 * math.pi
    diagonal = math.hypot(roi[3], roi[4])
    return np.array([along / diagonal, across / diagonal, dz / roi[5], *np.log(box[3:6] / roi[3:6]), turn])


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_residuals_follow_the_definition(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes, rois = random_boxes(generator, 8), random_boxes(generator, 8)
    got = encode_in_roi(boxes, rois)
    expected = [reference_encode(box, roi) for box, roi in zip(boxes.numpy(), rois.numpy(), strict=True)]
    np.testing.assert_allclose(got.numpy(), np.array(expected), atol=1e-9)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_decoding_undoes_encoding_up_to_half_turns(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes, rois = random_boxes(generator, 8), random_boxes(generator, 8)
    back = decode_in_roi(encode_in_roi(boxes, rois), rois)
    torch.testing.assert_close(back[:, :6], boxes[:, :6])
    torch.testing.assert_close(torch.sin(back[:, 6] - boxes[:, 6]).abs(), torch.zeros(8).double(), atol=1e-9, rtol=0)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_what_is_seen_from_a_roi_moves_with_the_scene(seed: int) -> None:
    """Scene and RoI turned and moved together: the same residuals, the same grid, the same offsets of points."""
    generator = torch.Generator().manual_seed(seed)
    boxes, rois = random_boxes(generator, 6), random_boxes(generator, 6)
    angle = float(torch.rand(1, generator=generator)) * 6
    shift = (torch.rand(3, generator=generator) * 20).double()

    def moved(rows: torch.Tensor) -> torch.Tensor:
        turned = torch.cat([turn(rows[:, :3], angle) + shift, rows[:, 3:6], rows[:, 6:] + angle], 1)
        return turned

    torch.testing.assert_close(encode_in_roi(moved(boxes), moved(rois)), encode_in_roi(boxes, rois))
    grid, grid_moved = roi_grid_points(rois, 3), roi_grid_points(moved(rois), 3)
    torch.testing.assert_close(grid_moved.flatten(0, 1), turn(grid.flatten(0, 1), angle) + shift)
    point = (torch.rand(1, 3, generator=generator) * 10).double()
    point_moved = turn(point, angle) + shift
    for roi, roi_moved, near, near_moved in zip(rois, moved(rois), grid, grid_moved, strict=True):
        # The offsets themselves turn with the scene; in the RoI's own frame they stay.
        stays = turn(point_moved - near_moved, -float(roi_moved[6]))
        torch.testing.assert_close(stays, turn(point - near, -float(roi[6])))


def turn(xyz: torch.Tensor, angle: float) -> torch.Tensor:
    cos, sin = math.cos(angle), math.sin(angle)
    return xyz @ torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]], dtype=xyz.dtype)


def test_heading_is_seen_within_a_quarter_turn() -> None:
    yaws = torch.linspace(-9, 9, 181)
    boxes = torch.zeros(181, 7)
    boxes[:, 3:6] = 1
    boxes[:, 6] = yaws
    rois = boxes.clone()
    rois[:, 6] = 0.3
    seen = to_roi_frame(boxes, rois)[:, 6]
    assert (seen.abs() <= math.pi / 2 + 1e-6).all()
    torch.testing.assert_close(torch.sin(seen - (yaws - 0.3)), torch.zeros(181), atol=1e-5, rtol=0)
