import math

import pytest
import torch
from torch.nn import functional as F

from equilidar.objectives import PointContrast
from equilidar.objectives.point_contrast import info_nce
from equilidar.objectives.sampling import sample_matches

from .toy import GRID, STRIDES, ConstantEncoder, ToyEncoder, encode_pair, info, knowing, shuffled, views


def printed_loss(x_a: list, x_b: list, tau: float) -> float:
    """L_pnce as printed (E-SSL3D), over the pairs (i, i) of one cloud: the sum."""
    total = 0.0
    for i, x in enumerate(x_a):
        scores = [math.exp(sum(p * q for p, q in zip(x, y, strict=True)) / tau) for y in x_b]
        total -= math.log(scores[i] / sum(scores))
    return total


def objective(channels: int = 16, **switches) -> PointContrast:
    return PointContrast(features=info(channels), **{"projector": (), **switches})


def test_two_points_by_hand():
    x = torch.eye(2)
    losses, correct = info_nce(x, x, torch.ones(2, dtype=torch.bool), torch.tensor([0, 2]), 1.0)
    # Similarities 1 and 0: -log(e / (e + 1)).
    torch.testing.assert_close(losses, torch.full((2,), math.log(1 + math.exp(-1))))
    assert correct.all()
    losses, correct = info_nce(x, x.flip(0), torch.ones(2, dtype=torch.bool), torch.tensor([0, 2]), 0.5)
    torch.testing.assert_close(losses, torch.full((2,), 2 + math.log(1 + math.exp(-2))))
    assert not correct.any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("negatives", ["cloud", "batch"])
@pytest.mark.parametrize("level", ["conv4", "bev", ["conv4", "out"]])
def test_loss_is_the_printed_formula(reduction: str, negatives: str, level):
    torch.manual_seed(0)
    pair = encode_pair(views(1, 2, 3), ToyEncoder())
    loss = objective(
        level=level, negatives=negatives, reduction=reduction, interpolation="nearest", temperature=0.2, max_pairs=12
    )
    stride = (8, 4, 4) if level != "conv4" else (4, 4, 4)
    matches, offsets = sample_matches(pair.views, GRID, stride, 12)
    # Look every feature up by its cell, in Python.
    clouds = []
    for item in range(3):
        pairs = []
        for match in matches[offsets[item] : offsets[item + 1]].tolist():
            read = []
            for row, view, encoded in zip(match, (pair.views.a, pair.views.b), (pair.a, pair.b), strict=True):
                names = {"bev": ["out"]}.get(level, [level]) if isinstance(level, str) else level
                columns = []
                for name in names:
                    voxels, step = encoded.stages[name], STRIDES[name]
                    x, y, z = ((view.points.xyz[row] - torch.tensor(GRID.low)) // 0.5).tolist()
                    cell = [item, int(z // step[0]), int(y // step[1]), int(x // step[2])]
                    columns.append(voxels.features[voxels.coords.tolist().index(cell)])
                read.append(F.normalize(torch.cat(columns), dim=0).tolist())
            pairs.append(read)
        clouds.append(pairs)
    num = sum(len(cloud) for cloud in clouds)
    assert num > 20
    groups = clouds if negatives == "cloud" else [[p for cloud in clouds for p in cloud]]
    total = sum(printed_loss([p[0] for p in group], [p[1] for p in group], 0.2) for group in groups)
    out = loss(pair)
    expected = total / (num if reduction == "mean" else 3)
    torch.testing.assert_close(out.terms["info_nce"], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert out.metrics["pairs"] == num


@pytest.mark.parametrize("projector", [(), (16, 8)])
def test_a_constant_encoder_gives_ln_k(projector: tuple[int, ...]):
    pair = encode_pair(views(1, 2), ConstantEncoder())
    counts = sample_matches(pair.views, GRID, (4, 4, 4), 20)[1].diff().float()
    per_cloud = (counts * counts.log()).sum()
    mean = objective(projector=projector, max_pairs=20)(pair)
    torch.testing.assert_close(mean.terms["info_nce"], per_cloud / counts.sum())
    summed = objective(projector=projector, max_pairs=20, reduction="sum")(pair)
    torch.testing.assert_close(summed.terms["info_nce"], per_cloud / 2)
    pooled = objective(projector=projector, max_pairs=20, negatives="batch")(pair)
    torch.testing.assert_close(pooled.terms["info_nce"], counts.sum().log())


@pytest.mark.parametrize("level", ["conv4", "bev"])
@pytest.mark.parametrize("interpolation", ["nearest", "trilinear"])
def test_features_that_move_with_the_scene_score_better_than_shuffled_ones(level: str, interpolation: str):
    pair = views(1, 2, 3)
    scene = encode_pair(pair, ConstantEncoder())
    scene.a = knowing(pair.a, lambda xyz, points: pair.a.view_T_sweep.inverse().apply(xyz, points.offsets))
    scene.b = knowing(pair.b, lambda xyz, points: pair.b.view_T_sweep.inverse().apply(xyz, points.offsets))
    loss = objective(level=level, interpolation=interpolation)
    right = loss(scene)
    scene.b = shuffled(scene.b)
    wrong = loss(scene)
    assert right.terms["info_nce"] < 0.5 * wrong.terms["info_nce"]
    assert right.metrics["retrieved"] > 2 * wrong.metrics["retrieved"]


def test_gradient_reaches_encoder_and_projector():
    torch.manual_seed(0)
    encoder, loss = ToyEncoder(), objective(projector=(16, 8))
    loss(encode_pair(views(1, 2), encoder)).total().backward()
    for module in (encoder, loss):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


def test_a_cloud_is_scored_alike_in_any_batch():
    torch.manual_seed(0)
    encoder, loss = ToyEncoder(), objective(max_pairs=15)
    parts = [loss(encode_pair(views(seed), encoder)) for seed in (1, 2)]
    whole = loss(encode_pair(views(1, 2), encoder))
    weights = torch.stack([part.metrics["pairs"] for part in parts])
    values = torch.stack([part.terms["info_nce"] for part in parts])
    torch.testing.assert_close(whole.terms["info_nce"], (weights * values).sum() / weights.sum())


def test_pairs_without_a_feature_do_not_count():
    torch.manual_seed(0)
    pair = encode_pair(views(1), ToyEncoder())
    loss = objective(interpolation="nearest")
    pairs = loss(pair).metrics["pairs"]
    voxels = pair.b.stages["conv4"]
    kept = torch.arange(len(voxels.coords)) % 2 == 0
    voxels.coords, voxels.features = voxels.coords[kept], voxels.features[kept]
    out = loss(pair)
    assert 0 < out.metrics["pairs"] < pairs
    losses, _ = info_nce(torch.eye(3), torch.eye(3), torch.tensor([True, True, False]), torch.tensor([0, 3]), 1.0)
    torch.testing.assert_close(losses[:2], torch.full((2,), math.log(1 + math.exp(-1))))


@pytest.mark.parametrize("level", ["conv4", "bev"])
@pytest.mark.parametrize("projector", [(), (16, 8)])
def test_nothing_to_contrast_is_zero_with_zero_gradient(level: str, projector: tuple[int, ...]):
    for pair in (views(1, 2, num=0), views(1, 2)):
        pair.matches = pair.matches[:0]
        pair.match_offsets = torch.zeros_like(pair.match_offsets)
        encoder, loss = ToyEncoder(), objective(level=level, projector=projector)
        out = loss(encode_pair(pair, encoder))
        out.total().backward()
        assert out.total() == 0
        for parameter in (*encoder.parameters(), *loss.parameters()):
            assert parameter.grad is not None and parameter.grad.eq(0).all()
    losses, _ = info_nce(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool), torch.tensor([0]), 1.0)
    assert losses.shape == (0,)


def test_an_empty_cloud_beside_a_full_one_changes_nothing():
    torch.manual_seed(0)
    encoder, loss = ToyEncoder(), objective()
    pair = encode_pair(views(1, 2), encoder)
    pair.views.matches = pair.views.matches[: pair.views.match_offsets[1]]
    pair.views.match_offsets[2] = pair.views.match_offsets[1]
    torch.testing.assert_close(loss(pair).total(), loss(encode_pair(views(1), encoder)).total())


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"level": "conv9"}, "point_contrast.level"),
        ({"level": []}, "point_contrast.level"),
        ({"interpolation": "cubic"}, "point_contrast.interpolation"),
        ({"negatives": "all"}, "point_contrast.negatives"),
        ({"reduction": "max"}, "point_contrast.reduction"),
        ({"temperature": 0.0}, "temperature > 0"),
    ],
)
def test_unknown_switches_are_refused(switches: dict, message: str):
    with pytest.raises(ValueError, match=message):
        objective(**switches)
