import itertools

import pytest
import torch
from torch import nn

from equilidar.objectives import FlowEquivariance
from equilidar.structures import (
    Affine3,
    BackboneFeatures,
    PairFeatures,
    PointCloudBatch,
    SparseVoxels,
    TransformDraw,
    View,
    ViewPair,
    WarpedSource,
)

from .toy import GRID, ConstantEncoder, ToyEncoder, encode_pair, info, knowing, shuffled, target_copy, views


def objective(channels: int = 16, **switches) -> FlowEquivariance:
    torch.manual_seed(0)
    return FlowEquivariance(features=info(channels), **{"projector": (12, 8), "predictor": (8, 8), **switches})


def plain(channels: int, **switches) -> FlowEquivariance:
    """Compare the features themselves: the projector is the identity and there is no predictor."""
    loss = objective(channels, projector=(channels,), predictor=None, **switches)
    for head in (loss.projector, loss.target_projector):
        if head is not None:
            nn.init.eye_(head[0].weight)
            nn.init.zeros_(head[0].bias)
    return loss


def by_hand(source_cells, source_features, moves, online_cells, online_features) -> PairFeatures:
    """One cloud. Cells are (y, x) of 2 m; a move is (from cell, to cell, weight)."""

    def stage(cells, features) -> BackboneFeatures:
        order = sorted(range(len(cells)), key=lambda i: cells[i])
        coords = torch.tensor([[0, 0, *cells[i]] for i in order], dtype=torch.int32)
        rows = torch.tensor([features[i] for i in order])
        return BackboneFeatures({"out": SparseVoxels(coords, rows, GRID, (1, 8, 8), (8, 4, 4), 1)})

    def center(cell) -> list[float]:
        return [-8 + 2 * cell[1] + 1.0, -8 + 2 * cell[0] + 1.0, 0.0]

    xyz = torch.tensor([center(move[0]) for move in moves])
    warped = torch.tensor([center(move[1]) for move in moves])
    draw = TransformDraw(torch.zeros(1), torch.ones(1), torch.zeros(1, dtype=torch.bool), torch.zeros(1, 3))
    points = PointCloudBatch(xyz, torch.zeros(len(xyz), 0), torch.tensor([0, len(xyz)]), ())
    view = View(points, torch.arange(len(xyz)), draw, Affine3.identity(1))
    weight = torch.tensor([move[2] for move in moves])
    pair = ViewPair(
        view,
        view,
        WarpedSource(view, warped, torch.ones(len(xyz), dtype=torch.bool), weight),
        torch.zeros(0, 2, dtype=torch.int64),
        torch.tensor([0, 0]),
        torch.tensor([0]),
        ("hand",),
    )
    online = stage(online_cells, online_features)
    return PairFeatures(pair, online, online, stage(source_cells, source_features))


TWO = ([(1, 1), (5, 5)], [[1.0, 0.0], [0.0, 1.0]])
MOVES = [((1, 1), (1, 2), 1.0), ((5, 5), (6, 5), 0.5)]
ONLINE = ([(1, 2), (6, 5), (7, 7)], [[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]])


@pytest.mark.parametrize(
    ("form", "normaliser", "expected"),
    [
        # Squared distances: 0, and (0, 1) to (3, 0): 10, weight 0.5; scaled to unit length first: 2.
        ("l2", "HW", 5 / 64),
        ("l2", "valid", 5 / 1.5),
        ("cosine", "HW", 1 / 64),
        ("cosine", "valid", 1 / 1.5),
    ],
)
def test_two_points_by_hand(form: str, normaliser: str, expected: float):
    out = plain(2, form=form, normaliser=normaliser)(by_hand(*TWO, MOVES, *ONLINE))
    assert out.terms["regression"].item() == pytest.approx(expected, rel=1e-5)
    assert out.metrics["pairs"] == 2 and out.metrics["paired_points"] == 1
    assert float(out.metrics["reached_cells"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("collisions", "expected"), [("mean", 0.5), ("max", 1.0)])
def test_collisions_by_hand(collisions: str, expected: float):
    # Both source cells meet at (1, 2), where the later sweep has (1, 0): mean (.5, .5), max (1, 1).
    moves = [((1, 1), (1, 2), 1.0), ((5, 5), (1, 2), 1.0)]
    out = plain(2, collisions=collisions, normaliser="valid")(by_hand(*TWO, moves, *ONLINE))
    assert out.terms["regression"].item() == pytest.approx(expected)


def test_cells_that_are_empty_later_count_only_on_the_dense_map():
    moves = [((1, 1), (1, 2), 1.0), ((5, 5), (0, 0), 1.0)]
    pair = by_hand(*TWO, moves, *ONLINE)
    assert plain(2, normaliser="valid")(pair).terms["regression"] == 0
    dense = plain(2, normaliser="valid", cells="dense")(pair)
    assert dense.terms["regression"].item() == pytest.approx(0.5)  # (0, 1) to an empty cell's zero
    assert dense.metrics["pairs"] == 2


SWITCHES = list(itertools.product(("l2", "cosine"), ("HW", "valid"), ("mean", "max"), ("occupied", "dense")))


@pytest.mark.parametrize(("form", "normaliser", "collisions", "cells"), SWITCHES)
def test_loss_is_the_printed_formula(form: str, normaliser: str, collisions: str, cells: str):
    """L_flow = 1/HW || m'(warp(f'(p_{t-1}))) - q(m(f(p_t))) ||^2 (E-SSL3D), by loops over points and cells."""
    torch.manual_seed(2)
    encoder = ToyEncoder()
    pair = encode_pair(views(1, 2), encoder, target_copy(ToyEncoder()))
    generator = torch.Generator().manual_seed(0)
    pair.views.source.weight = torch.rand(len(pair.views.source.weight), generator=generator)
    pair.views.source.valid = torch.rand(len(pair.views.source.valid), generator=generator) > 0.2
    loss = objective(form=form, normaliser=normaliser, collisions=collisions, cells=cells).eval()
    for buffer in loss.projector.buffers():
        buffer.data = buffer.data + 0.3  # so that m and m' differ

    def table(encoded: BackboneFeatures) -> dict:
        voxels = encoded.stages["out"]
        return {(b, y, x): row for (b, _, y, x), row in zip(voxels.coords.tolist(), voxels.features, strict=True)}

    def cell(item: int, xyz) -> tuple[int, int, int]:
        return item, int((xyz[1] + 8) // 2), int((xyz[0] + 8) // 2)

    source, online = table(pair.source), table(pair.a)
    points = pair.views.source
    arrived: dict = {}
    for i, item in enumerate(points.view.points.batch_index.tolist()):
        place = points.warped[i].tolist()
        inside = all(low <= p < high for p, low, high in zip(place, GRID.low, GRID.high, strict=True))
        target = cell(item, place)
        if points.valid[i] and inside and (target in online or cells == "dense"):
            feature = source[cell(item, points.view.points.xyz[i].tolist())]
            arrived.setdefault(target, []).append((feature, float(points.weight[i])))
    total = weights = 0.0
    for target, features in arrived.items():
        share = sum(weight for _, weight in features)
        if collisions == "mean":
            carried = sum(feature * weight for feature, weight in features) / share
        else:
            carried = torch.stack([feature for feature, _ in features]).max(0).values
        z = loss.target_projector(carried[None])[0]
        y = loss.predictor(loss.projector(online.get(target, torch.zeros(16))[None]))[0]
        if form == "cosine":
            z, y = z / z.norm(), y / y.norm()
        total += share / len(features) * (z - y).square().sum().item()
        weights += share / len(features)
    expected = total / (2 * 8 * 8 if normaliser == "HW" else weights)
    out = loss(pair)
    assert len(arrived) > 20 and out.metrics["pairs"] == len(arrived)
    assert out.terms["regression"].item() == pytest.approx(expected, rel=1e-4)


def test_a_constant_encoder_gives_zero():
    # BYOL's form: the trivial solution is a solution, so that collapse shows in the spread and not in the loss.
    pair = encode_pair(views(1, 2), ConstantEncoder(), target_copy(ConstantEncoder()))
    for form, output_norm in (("l2", False), ("l2", True), ("cosine", False)):
        loss = objective(form=form, predictor=None, target_batchnorm="batch", output_norm=output_norm)
        assert loss(pair).terms["regression"].item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("temporal", ["view_a", "separate"])
@pytest.mark.parametrize("form", ["l2", "cosine"])
def test_features_that_move_with_the_flow_score_better_than_shuffled_ones(form: str, temporal: str):
    pair = views(1, 2, 3, temporal=temporal)
    online = pair.temporal or pair.a
    back = online.view_T_sweep.inverse()
    scene = encode_pair(pair, ConstantEncoder())
    later = knowing(online, lambda xyz, points: back.apply(xyz, points.offsets))
    scene.a, scene.temporal = (later, None) if temporal == "view_a" else (scene.a, later)
    # The earlier sweep's points, at their places in the later one.
    scene.source = knowing(pair.source.view, lambda xyz, points: back.apply(pair.source.warped, points.offsets))
    loss = plain(16, form=form, normaliser="valid")
    right = loss(scene).total()
    scene.source = shuffled(scene.source)
    assert right < 0.5 * loss(scene).total()


def test_gradient_reaches_the_online_side_alone():
    encoder, target = ToyEncoder(), ToyEncoder()
    loss = objective()
    pair = views(1, 2)
    # Even where the source's features carry a graph, none goes back into it.
    features = PairFeatures(pair, encoder(pair.a.points), encoder(pair.b.points), target(pair.source.view.points))
    loss(features).total().backward()
    for module in (encoder, loss.projector, loss.predictor):
        assert all(p.grad is not None for p in module.parameters())
        assert sum(p.grad.abs().sum() for p in module.parameters()) > 0
    for module in (target, loss.target_projector):
        assert all(p.grad is None for p in module.parameters())


def test_without_stop_gradient_both_sides_learn():
    encoder, target = ToyEncoder(), ToyEncoder()
    loss, pair = objective(stop_gradient=False), views(1, 2)
    features = PairFeatures(pair, encoder(pair.a.points), encoder(pair.b.points), target(pair.source.view.points))
    loss(features).total().backward()
    assert loss.ema_pairs() == [] and loss.target_projector is None
    assert all(p.grad is not None and p.grad.isfinite().all() for p in target.parameters())


def test_the_target_projector_follows_and_never_trains():
    loss = objective()
    ((online, target),) = loss.ema_pairs()
    assert online is loss.projector and target is loss.target_projector
    for mine, theirs in zip(online.parameters(), target.parameters(), strict=True):
        assert mine.equal(theirs) and mine.requires_grad and not theirs.requires_grad
    assert loss.train().training and loss.projector.training and not loss.target_projector.training
    assert objective(target_batchnorm="batch").target_projector.training
    assert not objective(target_batchnorm="batch").eval().target_projector.training


def test_with_output_norm_a_prediction_of_the_mean_is_worth_nothing():
    encoder = ToyEncoder()
    pair = encode_pair(views(1, 2, 3), encoder, target_copy(encoder))
    for output_norm in (False, True):
        loss = objective(
            form="cosine",
            normaliser="valid",
            target_batchnorm="batch",
            output_norm=output_norm,
            predictor=(8,),
        )
        # The best that a predictor can do without looking: the mean of the projections.
        nn.init.zeros_(loss.predictor[0].weight)
        loss.predictor[0].bias.data = loss.projector(pair.a.last.features).mean(0).detach()
        worth = loss(pair).terms["regression"].item()
        # 2 - 2 cos: nothing known is 2.
        assert (worth > 1.5) == output_norm


@pytest.mark.parametrize("case", ["no points", "no valid flow", "no weight", "moved out of the grid"])
@pytest.mark.parametrize("normaliser", ["HW", "valid"])
@pytest.mark.parametrize("cells", ["occupied", "dense"])
def test_nothing_to_carry_is_zero_with_zero_gradient(case: str, normaliser: str, cells: str):
    pair = views(1, 2, num=0 if case == "no points" else 50)
    if case == "no valid flow":
        pair.source.valid[:] = False
    elif case == "no weight":
        pair.source.weight[:] = 0
    elif case == "moved out of the grid":
        pair.source.warped += 1000
    encoder, loss = ToyEncoder(), objective(normaliser=normaliser, cells=cells)
    out = loss(encode_pair(pair, encoder, target_copy(encoder)))
    out.total().backward()
    assert out.total() == 0 and out.metrics["paired_points"] == 0
    for parameter in (*encoder.parameters(), *loss.projector.parameters(), *loss.predictor.parameters()):
        assert parameter.grad is not None and parameter.grad.eq(0).all()


def test_embeddings_are_the_predictions_and_change_nothing():
    encoder = ToyEncoder()
    pair, loss = encode_pair(views(1, 2), encoder, target_copy(encoder)), objective()
    before = {name: buffer.clone() for name, buffer in loss.named_buffers()}
    predictions = loss.embeddings(pair)["predictions"]
    assert predictions.shape == (len(pair.a.last.coords), 8) and not predictions.requires_grad
    assert all(buffer.equal(before[name]) for name, buffer in loss.named_buffers())
    assert loss.projector.training and not loss.target_projector.training
    loss.eval()
    torch.testing.assert_close(predictions, loss.predictor(loss.projector(pair.a.last.features)))


def test_losses_are_float32_under_autocast():
    encoder = ToyEncoder()
    pair, loss = views(1, 2), objective(normaliser="valid")
    expected = loss(encode_pair(pair, encoder, target_copy(encoder))).total()
    with torch.autocast("cpu", torch.bfloat16):
        out = loss(encode_pair(pair, encoder, target_copy(encoder)))
        out.total().backward()
    assert out.terms["regression"].dtype == torch.float32
    torch.testing.assert_close(out.total(), expected, rtol=0.1, atol=0)


def test_unread_sources_and_unknown_switches_are_refused():
    pair = encode_pair(views(1), ToyEncoder())
    pair.source = None
    with pytest.raises(ValueError, match="reads the source sweep"):
        objective()(pair)
    separate = encode_pair(views(1, temporal="separate"), ToyEncoder())
    separate.temporal = None
    with pytest.raises(ValueError, match=r"augment\.temporal=separate"):
        objective()(separate)
    for switch in ("form", "normaliser", "collisions", "cells", "target_batchnorm"):
        with pytest.raises(ValueError, match=f"flow_equivariance.{switch}"):
            objective(**{switch: "else"})
    with pytest.raises(ValueError, match="must end as wide"):
        objective(predictor=(8, 4))
