"""Voxel R-CNN and PV-RCNN as a whole."""

import dataclasses

import pytest
import torch

from equilidar.detection.proposals import propose
from equilidar.ops.rotated_iou import iou_3d_pairs
from equilidar.structures import Boxes3D, LabelledBatch, PointCloudBatch
from equilidar.sync_watch import watch_syncs

from .learning import learn_by_heart
from .test_second import NAMES, scene
from .two_stage_detectors import DETECTORS, SECOND_STAGE

NOWHERE = PointCloudBatch(torch.zeros(0, 3), torch.zeros(0, 1), torch.zeros(3, dtype=torch.int64), ("intensity",))


@pytest.fixture(params=DETECTORS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.slow
def test_it_learns_what_it_is_shown(name: str) -> None:
    """Learn one batch by heart: the boxes of known classes are those that it is surest of."""
    model = DETECTORS[name]()
    points, boxes = scene()
    learn_by_heart(model, points, boxes, steps=120)
    with torch.no_grad():
        found = model.decode(model(points))
    scores = found.scores.tensor_split(found.offsets[1:-1])
    for truth, got, score in zip(boxes.split(), found.boxes.split(), scores, strict=True):
        assert (score.diff() <= 0).all()
        truth = truth.select(truth.label != NAMES.index("Van"))
        sure = got.select((score > 0.5) & (torch.arange(len(got)) < len(truth)))
        assert len(sure) == len(truth)
        order = [int((sure.center - center).norm(dim=1).argmin()) for center in truth.center]
        assert sure.label[order].tolist() == truth.label.tolist()
        assert (iou_3d_pairs(sure.as_tensor()[order], truth.as_tensor()) > 0.6).all()
        assert (torch.cos(sure.yaw[order] - truth.yaw) > 0.9).all()


def test_nothing_there_is_trained_through(name: str) -> None:
    """No boxes, boxes beyond the grid, no points, classes never seen: a finite loss with gradients everywhere."""
    points, boxes = scene()
    far = dataclasses.replace(boxes, center=boxes.center + 500)
    strange = dataclasses.replace(boxes, label=torch.full_like(boxes.label, NAMES.index("Van")))
    only_cars = boxes.select(boxes.label == NAMES.index("Car"))
    half = PointCloudBatch(points.xyz[:2000], points.features[:2000], torch.tensor([0, 2000, 2000]), points.channels)
    cases = [(points, Boxes3D.empty(2)), (points, far), (points, strange), (points, only_cars), (half, boxes)]
    for cloud, labels in [*cases, (NOWHERE, boxes), (NOWHERE, Boxes3D.empty(2))]:
        model = DETECTORS[name]()
        terms = model.loss(model(cloud), labels)
        terms.total().backward()
        assert torch.isfinite(terms.total())
        grads = [parameter.grad for parameter in model.parameters()]
        assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
        assert model.head.conv_cls.bias.grad.abs().sum() > 0
        model.eval()
        with torch.no_grad():
            found = model.decode(model(cloud))
        assert found.boxes.batch_size == 2 and torch.isfinite(found.boxes.as_tensor()).all()


def test_without_any_proposal_the_second_stage_is_silent(name: str) -> None:
    """A first stage that says nothing finite: nothing is learned from it, nothing is found, nothing breaks."""
    model = DETECTORS[name]()
    points, boxes = scene()
    predictions = model(points)
    broken = dataclasses.replace(
        predictions.first, box_deltas=torch.full_like(predictions.first.box_deltas, torch.inf).requires_grad_()
    )
    predictions = dataclasses.replace(predictions, first=broken)
    assert not propose(broken, SECOND_STAGE.train_proposals).valid.any()
    terms = model.loss(predictions, boxes).terms
    second = terms["roi_classification"] + terms["roi_box"] + terms["roi_corner"]
    second.backward()
    assert second.item() == pytest.approx(0, abs=1e-9)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.roi_head.parameters())
    assert len(model.eval().decode(predictions).scores) == 0


def test_proposals_are_drawn_by_the_sweeps_seeds(name: str) -> None:
    model = DETECTORS[name]().eval()
    points, boxes = scene()
    predictions = model(points)

    def terms(*seeds: int) -> dict[str, float]:
        batch = LabelledBatch(points, boxes, torch.tensor(seeds), ("a", "b"))
        return {key: value.item() for key, value in model.batch_loss(predictions, batch).terms.items()}

    assert terms(5, 6) == terms(5, 6)
    assert terms(5, 6)["roi_classification"] != terms(7, 8)["roi_classification"]
    assert terms(5, 6)["classification"] == terms(7, 8)["classification"]
    plain = {key: value.item() for key, value in model.loss(predictions, boxes).terms.items()}
    assert plain == terms(0, 1)


def test_labels_outside_are_the_datasets(name: str) -> None:
    model = DETECTORS[name]().eval()
    points, boxes = scene()
    predictions = model(points)
    full = model.loss(predictions, boxes).terms
    known = model.loss(predictions, boxes.select(boxes.label != NAMES.index("Van"))).terms
    assert all(torch.equal(full[key], value) for key, value in known.items())
    predictions.first.class_logits.data[:] = torch.tensor([-9.0, -9.0, 9.0])  # the head's third class
    for layer in ("cls_pred_layer", "cls_layers"):
        if hasattr(model.roi_head, layer):
            last = getattr(model.roi_head, layer)
            torch.nn.init.constant_((last if layer == "cls_pred_layer" else last[-1]).bias, 9.0)
    found = model.decode(predictions)
    assert len(found.scores) and set(found.boxes.label.tolist()) == {NAMES.index("Cyclist")}


def test_a_broken_box_is_named(name: str) -> None:
    model = DETECTORS[name]().eval()
    points, boxes = scene()
    predictions = model(points)
    boxes.size[5, 1] = float("nan")
    with pytest.raises(ValueError, match="sweep kitti/000007 has a box"):
        model.loss(predictions, boxes, keys=("kitti/000003", "kitti/000007"))


def test_gradients_of_the_second_stage_reach_the_backbone_but_not_the_first_stage(name: str) -> None:
    model = DETECTORS[name]()
    points, boxes = scene()
    terms = model.loss(model(points), boxes).terms
    (terms["roi_classification"] + terms["roi_corner"]).backward()
    assert model.backbone.conv2[0][0].weight.grad.abs().sum() > 0
    assert model.head.conv_box.weight.grad is None and model.neck.blocks[0][0].weight.grad is None


def test_bfloat16_autocast_gives_nearly_the_same_loss(name: str) -> None:
    model = DETECTORS[name]().eval()
    points, boxes = scene()
    exact = model.loss(model(points), boxes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(model(points), boxes)
        model.decode(model(points))
    assert rough.total().dtype == torch.float32
    torch.testing.assert_close(rough.total(), exact.total(), rtol=0.05, atol=0.05)


def test_a_step_has_no_hidden_host_sync(name: str) -> None:
    model = DETECTORS[name]()
    points, boxes = scene()
    model.loss(model(points), boxes).total().backward()
    with watch_syncs() as syncs:
        model.loss(model(points), boxes).total().backward()
    assert [str(sync) for sync in syncs] == []
