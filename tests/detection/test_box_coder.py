import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.detection.box_coder import decode_boxes, encode_boxes
from equilidar.detection.direction import DIRECTION_OFFSET, direction_of, limit_period, with_direction

from .openpcdet_case import load

position = st.floats(-80, 80, width=32)
length = st.floats(0.25, 16, width=32)
angle = st.floats(-7, 7, width=32)
box = st.tuples(position, position, position, length, length, length, angle).map(lambda b: torch.tensor([b]))


@given(box, box)
def test_decode_inverts_encode(boxes, anchors) -> None:
    boxes, anchors = boxes.double(), anchors.double()
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes)


def test_encode_by_hand() -> None:
    anchor = torch.tensor([1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 0.1])  # diagonal 5
    box_row = torch.tensor([2.0, 4.0, 4.0, 8.0, 3.0, 1.0, 4.0])
    expected = torch.tensor([0.2, 0.4, 0.5, math.log(2), 0, -math.log(2), 3.9])
    torch.testing.assert_close(encode_boxes(box_row, anchor), expected)


@given(angle)
def test_direction_and_half_turn_give_the_heading_back(yaw: float) -> None:
    full = torch.tensor([yaw], dtype=torch.float64)
    back = with_direction(full + math.pi * 3, direction_of(full))  # 3 half turns: known up to pi only
    assert DIRECTION_OFFSET - 1e-9 <= float(back) < DIRECTION_OFFSET + 2 * math.pi + 1e-9
    assert abs(math.remainder(float(back - full), 2 * math.pi)) < 1e-9


def test_openpcdet_oracle_coder(oracles) -> None:
    case = {
        k: torch.from_numpy(v) for k, v in load(oracles / "openpcdet/conventions/augment_boxes.npz").items() if v.ndim
    }
    anchors, boxes = case["residual_coder/anchors"], case["residual_coder/boxes"]
    torch.testing.assert_close(encode_boxes(boxes, anchors), case["residual_coder/encoded"], atol=1e-6, rtol=1e-5)
    decoded = decode_boxes(case["residual_coder/encoded"], anchors)
    torch.testing.assert_close(decoded, case["residual_coder/decoded"], atol=1e-5, rtol=1e-5)


def test_openpcdet_oracle_limit_period(oracles) -> None:
    case = load(oracles / "openpcdet/conventions/augment_boxes.npz")
    names = [name for name in case if name.startswith("limit_period/offset")]
    assert names
    for name in names:
        offset, period = name.removeprefix("limit_period/offset").split("_period")
        exact = next(turn for turn in (math.pi, 2 * math.pi) if abs(turn - float(period)) < 1e-4)
        got = limit_period(torch.from_numpy(case["limit_period/in"]), float(offset), exact)
        torch.testing.assert_close(got, torch.from_numpy(case[name]), atol=1e-5, rtol=0)
