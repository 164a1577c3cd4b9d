"""From an estimator through the augmentation to the loss: what flow says counts, what it does not know stays out."""

import pytest
import torch

from equilidar.augment.group import SpatialGroup
from equilidar.augment.pipeline import ViewPipeline
from equilidar.data.simulator import SimulatedPairs
from equilidar.flow import ExactFlow, RigidFlow, ShuffledFlow, ZeroFlow
from equilidar.objectives import FlowEquivariance
from equilidar.structures import FlowField, LossTerms, SweepPairBatch

from .toy import GRID, ToyEncoder, encode_pair, info, scene_pair, target_copy

BATCH = SweepPairBatch.collate([scene_pair(1), scene_pair(2)], [1, 2])


def loss_by(flow: FlowField, **switches) -> tuple[LossTerms, ToyEncoder]:
    torch.manual_seed(0)
    encoder = ToyEncoder()
    objective = FlowEquivariance(features=info(16), projector=(12, 8), predictor=(8, 8), **switches).eval()
    pair = ViewPipeline(GRID, SpatialGroup())(BATCH, flow)
    return objective(encode_pair(pair, encoder, target_copy(ToyEncoder()))), encoder


def changed(**columns: torch.Tensor) -> FlowField:
    exact = ExactFlow()(BATCH)
    return FlowField(**{name: columns.get(name, getattr(exact, name)) for name in ("flow", "valid", "confidence")})


def test_points_whose_flow_is_not_valid_do_not_count_however_wild_it_is():
    valid = torch.arange(600) % 3 > 0
    wild = torch.where(valid[:, None], ExactFlow()(BATCH).flow, 1e4)
    for normaliser in ("HW", "valid"):
        masked, _ = loss_by(changed(valid=valid), normaliser=normaliser)
        unknown, _ = loss_by(changed(valid=valid, flow=wild), normaliser=normaliser)
        without, _ = loss_by(changed(confidence=valid.float()), normaliser=normaliser)
        assert masked.terms["regression"].item() == unknown.terms["regression"].item() > 0
        assert masked.terms["regression"].item() == pytest.approx(without.terms["regression"].item(), rel=1e-5)
    assert masked.metrics["paired_points"] < loss_by(changed())[0].metrics["paired_points"]


def test_no_valid_flow_gives_no_loss_and_no_gradient():
    out, encoder = loss_by(changed(valid=torch.zeros(600, dtype=torch.bool)))
    out.total().backward()
    assert out.total() == 0 and all(p.grad is None or p.grad.eq(0).all() for p in encoder.parameters())


@pytest.mark.parametrize("form", ["l2", "cosine"])
def test_confidence_weighs_cells(form: str):
    exact = changed()
    full, _ = loss_by(exact, form=form)
    half, _ = loss_by(changed(confidence=torch.full((600,), 0.5)), form=form)
    assert half.terms["regression"].item() == pytest.approx(full.terms["regression"].item() / 2, rel=1e-4)
    # By the cells that count, a confidence that is the same everywhere weighs nothing.
    full, _ = loss_by(exact, form=form, normaliser="valid")
    half, _ = loss_by(changed(confidence=torch.full((600,), 0.5)), form=form, normaliser="valid")
    assert half.terms["regression"].item() == pytest.approx(full.terms["regression"].item(), rel=1e-4)
    # A cloud that is trusted less pulls less.
    first = (torch.arange(600) < 300).float()
    parts = [
        loss_by(changed(confidence=c), form=form)[0].terms["regression"].item()
        for c in (first, 1 - first, 1 - 0.9 * first)
    ]
    assert parts[2] == pytest.approx(0.1 * parts[0] + parts[1], rel=1e-3)


@pytest.mark.parametrize("temporal", ["view_a", "separate"])
def test_both_sweeps_get_the_same_transform_and_flow_turns_along(temporal: str):
    pipeline = ViewPipeline(GRID, SpatialGroup(), temporal=temporal, temporal_parts=("yaw", "flip"))
    pair = pipeline(BATCH, ExactFlow()(BATCH))
    source, online = pair.source, pair.temporal or pair.a
    assert source is not None and BATCH.flow is not None
    assert source.view.view_T_sweep.linear.equal(online.view_T_sweep.linear)
    origin, offsets = source.view.origin, source.view.points.offsets
    turned = source.view.view_T_sweep.apply_vectors(BATCH.flow[origin], offsets)
    torch.testing.assert_close(source.warped, source.view.points.xyz + turned, atol=1e-4, rtol=0)
    # The toy's points are the same in both sweeps: where flow leads is where the later sweep, moved alike, has them.
    there = online.view_T_sweep.apply(BATCH.target.xyz[origin], offsets)
    torch.testing.assert_close(source.warped, there, atol=1e-4, rtol=0)


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_gaps_of_several_turns_give_flow_over_that_gap(gap: int):
    sensor = {"name": "hdl64e", "azimuth_steps": 360, "beam_stride": 4}
    pairs = SimulatedPairs(sensor, 1, 1, seed=7, gap=gap, exact_flow=True)
    batch = SweepPairBatch.collate([pairs[0]])
    assert batch.gap.item() == pytest.approx(0.1 * gap, abs=1e-6)
    assert batch.flow is not None
    own = (batch.flow - RigidFlow()(batch).flow).norm(dim=1)
    # Nothing drives faster than 30 m/s, and something moves.
    assert 0.05 * gap < own.max() < 3.0 * gap
    pair = ViewPipeline(GRID, SpatialGroup())(batch, ExactFlow()(batch))
    assert pair.source is not None and pair.source.valid.all()


def test_the_controls_teach_different_things():
    torch.manual_seed(0)
    exact, rigid = ExactFlow()(BATCH).flow, RigidFlow()(BATCH).flow
    moving = (exact - rigid).norm(dim=1) > 0.05
    assert 0.1 < moving.float().mean() < 0.9
    assert (exact - rigid)[~moving].abs().max() < 1e-4
    assert ZeroFlow()(BATCH).flow.eq(0).all()
    shuffled = ShuffledFlow(ExactFlow())(BATCH).flow
    for item in (slice(0, 300), slice(300, 600)):
        assert sorted(shuffled[item].tolist()) == sorted(exact[item].tolist())
    assert (shuffled - exact).norm(dim=1).mean() > 0.3
