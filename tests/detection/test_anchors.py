import pytest
import torch

from equilidar.detection.anchors import AnchorClass, make_anchors
from equilidar.structures import GridSpec

from .openpcdet_case import ANCHORS, grid_of, load

GRID = GridSpec.from_range([0, -8, -3, 16, 8, 1], [0.5, 0.5, 0.1])


def test_flat_order_is_y_x_class_yaw() -> None:
    anchors = make_anchors(ANCHORS, GRID, (4, 8))
    assert anchors.boxes.shape == (4 * 8 * 6, 7)
    boxes = anchors.boxes.view(4, 8, 3, 2, 7)
    torch.testing.assert_close(boxes[0, :, 0, 0, 0], torch.linspace(0, 16, 8))
    torch.testing.assert_close(boxes[:, 0, 0, 0, 1], torch.linspace(-8, 8, 4))
    for index, spec in enumerate(ANCHORS):
        assert (boxes[:, :, index, :, 3:6] == torch.tensor(spec.size)).all()
        torch.testing.assert_close(
            boxes[:, :, index, :, 2] - boxes[:, :, index, :, 5] / 2, torch.full((4, 8, 2), spec.bottom)
        )
    assert (boxes[..., 0, 6] == 0).all() and torch.allclose(boxes[..., 1, 6], torch.tensor(1.57))
    assert (anchors.class_index().view(4, 8, 3, 2) == torch.arange(3)[:, None]).all()


def test_classes_may_have_different_numbers_of_headings() -> None:
    one = AnchorClass("Cone", (0.4, 0.4, 0.8), -1.7, 0.5, 0.3, yaws=(0.0,))
    anchors = make_anchors([ANCHORS[0], one, ANCHORS[1]], GRID, (2, 3))
    assert anchors.per_cell == 5
    assert anchors.class_index()[:5].tolist() == [0, 0, 1, 2, 2]
    assert (anchors.boxes.view(6, 5, 7)[:, 2, 3] == torch.tensor(0.4)).all()


def test_single_cell_stands_in_the_middle() -> None:
    anchors = make_anchors(ANCHORS[:1], GRID, (1, 1))
    assert anchors.boxes[:, :2].tolist() == [[8, 0], [8, 0]]


@pytest.mark.parametrize(
    "change", [{"size": (1, 2)}, {"size": (1, 2, 0)}, {"matched": 0.3}, {"unmatched": 0.0}, {"yaws": ()}]
)
def test_impossible_anchor_is_refused(change: dict) -> None:
    given = {"name": "Car", "size": (3.9, 1.6, 1.56), "bottom": -1.78, "matched": 0.6, "unmatched": 0.45}
    with pytest.raises(ValueError, match="anchor Car"):
        AnchorClass(**(given | change))


def test_openpcdet_oracle_anchors(second_case) -> None:
    stored = torch.from_numpy(load(second_case / "targets_loss.npz")["anchors/all_HWA7_flat"])
    grid = grid_of(load(second_case / "crop_case.npz"))
    _, height, width = grid.shape
    anchors = make_anchors(ANCHORS, grid, (height // 8, width // 8))
    # To the last bit: ties in the assignment depend on it.
    assert torch.equal(anchors.boxes, stored)
