import math

import pytest
import torch
from torch import nn

from equilidar.objectives import FlowEquivariance
from equilidar.objectives.monitor import CollapseMonitor, channel_std, effective_rank, gradient_norms

from .toy import ToyEncoder, encode_pair, follow, target_copy, views


def test_std_is_that_of_unit_rows():
    rows = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    assert channel_std(rows).tolist() == [0.5, 0.5]
    assert channel_std(torch.ones(5, 3)).abs().max() < 1e-6
    isotropic = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(channel_std(isotropic), torch.full((64,), 1 / 8), atol=0.005, rtol=0)


def test_effective_rank_counts_directions():
    generator = torch.Generator().manual_seed(0)
    isotropic = torch.randn(20_000, 32, generator=generator)
    assert float(effective_rank(isotropic)) == pytest.approx(32, abs=0.1)
    basis = torch.linalg.qr(torch.randn(32, 5, generator=generator))[0]
    assert float(effective_rank(isotropic[:, :5] @ basis.T)) == pytest.approx(5, abs=0.1)
    line = torch.linspace(0, 1, 50)[:, None] * torch.randn(1, 32, generator=generator) + 3
    assert float(effective_rank(line)) == pytest.approx(1, abs=1e-3)
    # Two directions with variances p and 1 - p: exp of their entropy.
    p = 0.8
    unequal = torch.tensor([[1.0, 0], [-1, 0], [0, 0.5], [0, -0.5]])
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert float(effective_rank(unequal)) == pytest.approx(math.exp(entropy))


def test_degenerate_embeddings_are_measured():
    monitor = CollapseMonitor()
    for rows in (torch.zeros(0, 4), torch.ones(1, 4)):
        report = monitor(rows)
        assert report.rank == 0 and not report.collapsed  # too few rows to judge
    assert monitor(torch.ones(10, 4)).collapsed
    assert monitor(torch.zeros(10, 4)).collapsed
    assert monitor(torch.full((10, 4), math.nan)).collapsed
    assert len(monitor(torch.randn(100, 4, generator=torch.Generator().manual_seed(0))).reasons) == 0


def test_gradient_norms_are_those_of_each_term_and_leave_no_trace():
    layer, unused = nn.Linear(3, 1, bias=False), nn.Linear(3, 1)
    x = torch.tensor([[1.0, 2.0, 2.0]])
    out = layer(x).sum()
    frozen = torch.ones((), requires_grad=False)
    terms = {"once": out, "thrice": 3 * out, "none": unused(x).sum(), "constant": frozen}
    norms = gradient_norms(terms, layer.parameters())
    assert {name: float(norm) for name, norm in norms.items()} == {"once": 3, "thrice": 9, "none": 0, "constant": 0}
    assert layer.weight.grad is None
    out.backward()  # the graph is still there


def trained(predictor: bool, stop_gradient: bool):
    """Teach flow equivariance alone for 300 steps, and look at predictions on scenes not trained on."""
    torch.manual_seed(0)
    encoder = ToyEncoder()
    loss = FlowEquivariance(
        features=encoder.feature_info,
        projector=(32, 16),
        predictor=(32, 16) if predictor else None,
        form="cosine",
        normaliser="valid",
        stop_gradient=stop_gradient,
        weight=1.0,
    )
    target = target_copy(encoder) if stop_gradient else None
    parameters = [p for p in (*encoder.parameters(), *loss.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 3e-3)
    scenes = [views(i, num=200) for i in range(8)]
    for step in range(300):
        optimizer.zero_grad()
        out = loss(encode_pair(scenes[step % 8], encoder, target))
        out.total().backward()
        optimizer.step()
        if target is not None:
            follow(encoder, target, 0.99)
            for online, moving in loss.ema_pairs():
                follow(online, moving, 0.99)
    held_out = encode_pair(views(1000, 1001), encoder, target)
    return float(out.total().detach()), CollapseMonitor()(loss.embeddings(held_out)["predictions"])


@pytest.mark.parametrize(
    ("predictor", "stop_gradient", "collapses"), [(True, True, False), (True, False, True), (False, False, True)]
)
def test_the_monitor_tells_a_collapse_that_the_loss_does_not(predictor: bool, stop_gradient: bool, collapses: bool):
    loss, report = trained(predictor, stop_gradient)
    assert report.collapsed == collapses, report
    # The collapsed ones have the lower loss: it cannot tell.
    assert loss < 0.03 if collapses else loss > 0.03
    if not collapses:
        assert report.std > 0.5 * 16**-0.5 and report.rank > 3
