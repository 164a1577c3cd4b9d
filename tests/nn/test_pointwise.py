import torch
from torch import nn

from equilidar.nn.pointwise import PointwiseConv1d, PointwiseConv2d


def test_rows_go_through_as_through_a_convolution_with_kernel_1() -> None:
    for ours, theirs, shape in (
        (PointwiseConv1d(5, 3, bias=True), nn.Conv1d(5, 3, 1), (1, 11)),
        (PointwiseConv2d(5, 3), nn.Conv2d(5, 3, 1, bias=False), (1, 11, 1)),
    ):
        theirs.load_state_dict(ours.state_dict())
        rows = torch.randn(11, 5)
        expected = theirs(rows.T.reshape(1, 5, *shape[1:])).reshape(3, 11).T
        torch.testing.assert_close(ours(rows), expected)
        assert ours(torch.randn(2, 4, 5)).shape == (2, 4, 3)
