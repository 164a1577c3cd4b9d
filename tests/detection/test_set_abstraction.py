"""Set abstraction against neighbours found by looking at every point, and layers as they are written down."""

import itertools

import pytest
import torch
from torch import nn

from equilidar.detection.set_abstraction import Ball, SetAbstraction

BALLS = (Ball(1.0, 4, (6, 5)), Ball(1.8, 6, (4,)))


def cloud(seed: int, lengths: tuple[int, ...], span: float = 5.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return torch.rand(sum(lengths), 3, generator=generator) * span, offsets


def neighbours(xyz, offsets, centers, center_offsets, ball: Ball) -> list[list[int]]:
    found = []
    for item in range(len(offsets) - 1):
        for center in centers[center_offsets[item] : center_offsets[item + 1]]:
            rows = range(int(offsets[item]), int(offsets[item + 1]))
            found.append([row for row in rows if (xyz[row] - center).double().norm() < ball.radius][: ball.num])
    return found


class Written(nn.Module):
    """One scale by its definition: offset and features of each neighbour through the layers, then the maximum."""

    def __init__(self, inside: int, ball: Ball, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.ball = ball
        widths = [inside + 3, *ball.channels]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.layers.load_state_dict({name: value.squeeze() for name, value in state.items()})

    def forward(self, xyz, offsets, features, centers, center_offsets) -> torch.Tensor:
        rows_in = []
        found = neighbours(xyz, offsets, centers, center_offsets, self.ball)
        for center, rows in zip(centers, found, strict=True):
            rows = rows + rows[:1] * (self.ball.num - len(rows))
            if rows:
                rows_in.append(torch.cat([xyz[rows] - center, features[rows]], 1))
            else:
                rows_in.append(features.new_zeros(self.ball.num, 3 + features.shape[1]))
        hidden = self.layers(torch.cat(rows_in))
        return hidden.view(len(centers), self.ball.num, -1).amax(1)


@pytest.mark.parametrize("training", [True, False])
def test_features_gradients_and_statistics_are_those_of_the_definition(training: bool) -> None:
    torch.manual_seed(0)
    pool = SetAbstraction(7, BALLS).train(training)
    xyz, offsets = cloud(0, (80, 0, 60))
    centers, center_offsets = cloud(1, (20, 3, 15), span=6.5)
    counts = [len(rows) for rows in neighbours(xyz, offsets, centers, center_offsets, BALLS[0])]
    assert 0 in counts and 4 in counts and any(0 < count < 4 for count in counts)
    written = [Written(7, ball, pool.mlps[i].state_dict()).train(training) for i, ball in enumerate(BALLS)]
    ours = torch.randn(140, 7).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    got = pool(xyz, offsets, ours, centers, center_offsets)
    expected = torch.cat([part(xyz, offsets, theirs, centers, center_offsets) for part in written], 1)
    assert pool.out_channels == got.shape[1] == 9
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)

    weights = torch.randn_like(got)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    for part, mlp in zip(written, pool.mlps, strict=True):
        for mine, other in zip(mlp.parameters(), part.parameters(), strict=True):
            torch.testing.assert_close(mine.grad.squeeze(), other.grad, atol=1e-4, rtol=1e-4)
        for mine, other in zip(mlp.buffers(), part.buffers(), strict=True):
            torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_without_features_of_their_own_points_have_their_offsets() -> None:
    pool = SetAbstraction(0, BALLS)
    xyz, offsets = cloud(0, (50,))
    got = pool(xyz, offsets, torch.zeros(50, 0), xyz[:10], torch.tensor([0, 10]))
    assert got.shape == (10, 9) and torch.isfinite(got).all()


@pytest.mark.parametrize(("points", "num"), [((0, 0), (5, 5)), ((20, 20), (0, 0)), ((0, 0), (0, 0))])
def test_nothing_there(points: tuple[int, int], num: tuple[int, int]) -> None:
    pool = SetAbstraction(7, BALLS)
    xyz, offsets = cloud(0, points)
    centers, center_offsets = cloud(1, num)
    got = pool(xyz, offsets, torch.randn(len(xyz), 7), centers, center_offsets)
    got.sum().backward()
    assert got.shape == (len(centers), 9) and torch.isfinite(got).all()
    assert all(parameter.grad is not None for parameter in pool.parameters())


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        Ball(0.4, 16, [])
