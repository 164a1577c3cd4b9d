import math

import pytest
import torch
from torch import Tensor, nn

from equilidar.augment.group import SpatialGroup
from equilidar.objectives import RotationClassification
from equilidar.objectives.rotation import pool_rows, relative_yaw, yaw_classes
from equilidar.structures import PairFeatures

from .toy import ConstantEncoder, ToyEncoder, encode_by, encode_pair, info, shuffled, views


def objective(channels: int = 16, **switches) -> RotationClassification:
    torch.manual_seed(0)
    return RotationClassification(features=info(channels), **{"hidden": (32,), **switches})


def test_classes_are_ten_bins_of_eighteen_degrees():
    degrees = torch.tensor([-90.0, -72.1, -71.9, -0.1, 0.1, 17.9, 18.1, 89.9, 90.0])
    classes = yaw_classes(degrees * math.pi / 180, (-math.pi / 2, math.pi / 2), 10)
    assert classes.tolist() == [0, 0, 1, 4, 5, 5, 6, 9, 9]


def test_two_cells_by_hand():
    rows = torch.tensor([[1.0, -4.0], [3.0, -2.0], [-1.0, 5.0]])
    pooled, shown = pool_rows(rows, torch.tensor([0, 0, 2]), 3)
    assert pooled.tolist() == [[2, -3, 3, -2], [0, 0, 0, 0], [-1, 5, -1, 5]]
    assert shown.tolist() == [True, False, True]


@pytest.mark.parametrize("level", ["bev", "conv4"])
def test_loss_is_the_cross_entropy_of_both_views(level: str):
    """L_ce = -1/2 sum_v log softmax(s(pool f(T_v p)))[class of T_v], mean over items."""
    torch.manual_seed(1)
    pair = encode_pair(views(1, 2, 3), ToyEncoder())
    loss = objective(level=level)
    total, right = 0.0, 0
    for view, encoded in ((pair.views.a, pair.a), (pair.views.b, pair.b)):
        for item in range(3):
            voxels = encoded.stages["conv4" if level == "conv4" else "out"]
            rows = voxels.features[voxels.coords[:, 0] == item]
            logits = loss.classifier(torch.cat([rows.mean(0), rows.max(0).values]))
            label = int((float(view.draw.yaw[item]) + math.pi / 2) / math.pi * 10)
            total -= (logits[label] - logits.exp().sum().log()).item() / 6
            right += int(logits.argmax()) == label
    out = loss(pair)
    torch.testing.assert_close(out.terms["cross_entropy"], torch.tensor(total), rtol=1e-4, atol=1e-5)
    assert out.metrics["accuracy"] == pytest.approx(right / 6)


def evenly_turned(pair: PairFeatures, num: int) -> None:
    """Pretend that the views were turned by as many angles as there are classes."""
    angles = (torch.arange(num) + 0.5) / num * math.pi - math.pi / 2
    pair.views.a.draw.yaw, pair.views.b.draw.yaw = angles, angles.flip(0)


def test_a_constant_encoder_gives_ln_10_and_no_classifier_helps():
    pair = encode_pair(views(*range(10)), ConstantEncoder())
    evenly_turned(pair, 10)
    loss = objective()
    out = fit(loss, [pair], 100)
    assert out.terms["cross_entropy"].item() == pytest.approx(math.log(10), abs=2e-3)
    assert float(out.metrics["accuracy"]) == pytest.approx(0.1)
    nn.init.zeros_(loss.classifier[-1].weight)
    nn.init.zeros_(loss.classifier[-1].bias)
    assert loss(pair).terms["cross_entropy"].item() == pytest.approx(math.log(10))


def fit(loss: RotationClassification, pairs: list[PairFeatures], steps: int):
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    for step in range(steps):
        optimizer.zero_grad()
        loss(pairs[step % len(pairs)]).total().backward(inputs=list(loss.parameters()))
        optimizer.step()
    return loss(pairs[0])


def heading_features(pair, deal: int | None) -> PairFeatures:
    """Encode views by the direction of what was the scene's x axis, turned as the scene is; or deal it among clouds."""

    def encode(view):
        def function(_, row: Tensor, centers: Tensor) -> Tensor:
            heading = view.view_T_sweep.linear[:, :2, 0]
            num = torch.zeros(len(centers), dtype=torch.int64).scatter(0, row, view.points.batch_index)
            return torch.cat([heading[num], torch.zeros(len(centers), 14)], 1)

        encoded = encode_by(function, view.points)
        return encoded if deal is None else shuffled(encoded, deal)

    return PairFeatures(pair, encode(pair.a), encode(pair.b), None)


@pytest.mark.parametrize("target", ["absolute", "relative"])
def test_features_that_turn_with_the_scene_score_better_than_shuffled_ones(target: str):
    # The feature does not tell a mirror, and the relative rotation depends on both views' mirrors.
    group = SpatialGroup(flip_probability=0.5 if target == "absolute" else 0.0)
    scenes = [views(*range(16 * i, 16 * i + 16), group=group) for i in range(9)]
    scores = {}
    for name, deals in (("turned", [None] * 9), ("shuffled", list(range(9)))):
        pairs = [heading_features(scene, deal) for scene, deal in zip(scenes, deals, strict=True)]
        loss = objective(target=target)
        fit(loss, pairs[1:], 200)
        scores[name] = loss(pairs[0])  # scenes that were not trained on
    assert scores["turned"].terms["cross_entropy"] < 0.5 * scores["shuffled"].terms["cross_entropy"]
    assert scores["turned"].metrics["accuracy"] > 0.5 > 0.35 > scores["shuffled"].metrics["accuracy"]


def test_relative_yaw_is_the_rotation_between_the_views():
    pair = views(*range(40))
    a, b = pair.a.draw, pair.b.draw
    for i in range(40):
        # b_T_a = R_b F_b F_a^-1 R_a^-1; a mirror reverses the rotation that it is moved past.
        expected = float(b.yaw[i] - a.yaw[i] if a.flip_y[i] == b.flip_y[i] else b.yaw[i] + a.yaw[i])
        difference = float(relative_yaw(pair)[i]) - expected
        assert math.isclose(math.remainder(difference, 2 * math.pi), 0, abs_tol=1e-4)
    assert a.flip_y.ne(b.flip_y).any()


def test_relative_classes_cover_all_differences():
    loss = objective(target="relative", yaw=(-0.5, 0.2))
    assert loss.yaw == (-1.0, 0.7)
    assert objective(target="relative").yaw == (-math.pi, math.pi)


def test_gradient_reaches_encoder_and_classifier():
    torch.manual_seed(0)
    encoder, loss = ToyEncoder(), objective()
    loss(encode_pair(views(1, 2), encoder)).total().backward()
    for module in (encoder, loss):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        assert any(p.grad.abs().sum() > 0 for p in module.parameters())


def test_views_that_show_nothing_do_not_count():
    torch.manual_seed(0)
    encoder, loss = ToyEncoder(), objective()
    full, half = views(1), views(1, 2)
    for view in (half.a, half.b):
        view.points = view.points.select(view.points.batch_index == 0)
    torch.testing.assert_close(loss(encode_pair(half, encoder)).total(), loss(encode_pair(full, encoder)).total())
    out = loss(encode_pair(views(1, 2, num=0), encoder))
    out.total().backward()
    assert out.total() == 0 and out.metrics["accuracy"] == 0
    assert all(p.grad is not None and p.grad.eq(0).all() for p in (*loss.parameters(), *encoder.parameters()))


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"level": "conv9"}, "rotation.level"),
        ({"target": "both"}, "rotation.target"),
        ({"num_classes": 1}, "num_classes >= 2"),
        ({"yaw": (1.0, 1.0)}, "yaw low < high"),
    ],
)
def test_unknown_switches_are_refused(switches: dict, message: str):
    with pytest.raises(ValueError, match=message):
        objective(**switches)
