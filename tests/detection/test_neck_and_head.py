import math

import pytest
import torch

from equilidar.detection.anchor_head import AnchorHead
from equilidar.detection.neck import BEVNeck
from equilidar.structures import BEVMap, GridSpec

from .openpcdet_case import ANCHORS

GRID = GridSpec.from_range([0, -8, -3, 16, 8, 1], [0.25, 0.25, 0.1])


def bev(channels: int, shape: tuple[int, int], batch: int = 2) -> BEVMap:
    values = torch.randn(batch, channels, *shape, generator=torch.Generator().manual_seed(0))
    return BEVMap(values, GRID, (8, 8))


@pytest.mark.parametrize(
    ("strides", "up_strides", "factor"), [((1, 2), (1, 2), 1), ((1, 2), (2, 4), 2), ((2, 2, 2), (1, 2, 4), 0.5)]
)
def test_neck_says_what_it_returns(strides, up_strides, factor) -> None:
    num = len(strides)
    neck = BEVNeck(
        6, (8, 16), layers=[1] * num, strides=strides, channels=[4] * num, up_strides=up_strides, up_channels=[3] * num
    )
    out = neck(bev(6, (8, 16)))
    assert neck.out_shape == (8 * factor, 16 * factor) and neck.out_channels == 3 * num
    assert out.features.shape == (2, neck.out_channels, *neck.out_shape)
    assert out.stride == (8 / factor, 8 / factor)


def test_neck_moves_with_its_input() -> None:
    """Convolutions with zero padding commute with shifts by whole output strides, away from the border."""
    neck = BEVNeck(3, (48, 48), layers=(1, 1), channels=(4, 4), up_channels=(4, 4)).eval()
    still = torch.zeros(1, 3, 48, 48)
    still[:, :, 20:26, 18:25] = torch.randn(1, 3, 6, 7, generator=torch.Generator().manual_seed(1))
    there = neck(BEVMap(still.roll((4, -2), (2, 3)), GRID, (8, 8))).features
    here = neck(BEVMap(still, GRID, (8, 8))).features.roll((4, -2), (2, 3))
    torch.testing.assert_close(there[..., 12:-12, 12:-12], here[..., 12:-12, 12:-12])
    assert here[..., 12:-12, 12:-12].std() > 0


def test_a_map_that_does_not_halve_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"map of \(9, 16\).*multiple of 2"):
        BEVNeck(3, (9, 16))
    with pytest.raises(ValueError, match="one entry per block"):
        BEVNeck(3, (8, 16), layers=(1, 1, 1))


def test_another_map_than_built_for_is_refused() -> None:
    with pytest.raises(ValueError, match=r"built for a map of \(8, 16\).*got \(8, 8\)"):
        BEVNeck(6, (8, 16))(bev(6, (8, 8)))
    with pytest.raises(ValueError, match=r"built for a map of \(8, 16\).*got \(8, 8\)"):
        AnchorHead(6, (8, 16), GRID, ANCHORS)(bev(6, (8, 8)))


def test_head_outputs_stand_in_the_anchors_order() -> None:
    head = AnchorHead(5, (3, 4), GRID, ANCHORS)
    for conv in (head.conv_cls, head.conv_box, head.conv_dir_cls):
        torch.nn.init.normal_(conv.weight)
    x = bev(5, (3, 4))
    out = head(x)
    at = x.features[1, :, 2, 3]  # item 1, y 2, x 3
    rows = slice((2 * 4 + 3) * 6, (2 * 4 + 4) * 6)
    for values, conv in (
        (out.class_logits, head.conv_cls),
        (out.box_deltas, head.conv_box),
        (out.direction_logits, head.conv_dir_cls),
    ):
        expected = conv.weight[:, :, 0, 0] @ at + conv.bias
        torch.testing.assert_close(values[1, rows].flatten(), expected)
    cell = out.anchors.boxes[rows]
    torch.testing.assert_close(cell[:, :2], torch.tensor([[16.0, 8.0]]).expand(6, 2))


def test_untrained_head_expects_little() -> None:
    head = AnchorHead(5, (3, 4), GRID, ANCHORS, prior=0.03)
    out = head(BEVMap(torch.zeros(1, 5, 3, 4), GRID, (8, 8)))
    torch.testing.assert_close(out.class_logits.sigmoid(), torch.full((1, 72, 3), 0.03))
    assert head.conv_cls.bias[0].item() == pytest.approx(math.log(0.03 / 0.97))
    assert 0.0005 < head.conv_box.weight.std() < 0.002
    assert "anchor_boxes" not in head.state_dict()
    with pytest.raises(ValueError, match="prior"):
        AnchorHead(5, (3, 4), GRID, ANCHORS, prior=1.0)
