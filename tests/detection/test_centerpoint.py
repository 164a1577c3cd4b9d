import math

import pytest
import torch
from torch import nn

from equilidar.backbones import VoxelBackBone8x, VoxelResBackBone8x
from equilidar.detection.center_decode import CenterSelection
from equilidar.detection.center_head import CenterHead
from equilidar.detection.center_losses import CenterLoss
from equilidar.detection.centerpoint import CenterPoint, build_centerpoint
from equilidar.ops.rotated_iou import iou_3d_pairs
from equilidar.structures import BEVMap, Boxes3D, PointCloudBatch

from .learning import learn_by_heart
from .test_second import GRID, NAMES, neck, scene

TASKS = [["Car"], ["Pedestrian", "Cyclist"]]


def build(**kwargs) -> CenterPoint:
    torch.manual_seed(0)
    backbone = VoxelResBackBone8x(GRID, 4, width=0.25)
    settings = {"tasks": TASKS, "velocity": True, "shared_channels": 24} | kwargs
    return build_centerpoint(backbone, NAMES, neck=neck, **settings)


def moving_scene() -> tuple[PointCloudBatch, Boxes3D]:
    points, boxes = scene()
    boxes.velocity[:] = torch.stack([boxes.yaw.cos(), boxes.yaw.sin(), 0 * boxes.yaw], 1) * 3
    return points, boxes


def test_it_learns_what_it_is_shown() -> None:
    """Learn one batch by heart: every box of a known class is found, with its class, heading and velocity."""
    model = build()
    points, boxes = moving_scene()
    boxes.velocity[1] = math.nan  # unknown: costs nothing
    learn_by_heart(model, points, boxes, steps=90)
    with torch.no_grad():
        found = model.eval().decode(model(points))
    for truth, got in zip(boxes.split(), found.boxes.split(), strict=True):
        truth = truth.select(truth.label != 0)
        assert len(got) == len(truth)
        order = [int((got.center - center).norm(dim=1).argmin()) for center in truth.center]
        assert got.label[order].tolist() == truth.label.tolist()
        assert (iou_3d_pairs(got.as_tensor()[order], truth.as_tensor()) > 0.7).all()
        assert (torch.cos(got.yaw[order] - truth.yaw) > 0.95).all()
        known = truth.velocity[:, 0].isfinite()
        assert ((got.velocity[order] - truth.velocity)[known].norm(dim=1) < 0.5).all()
    assert (found.scores > 0.5).all()


def test_nothing_there_is_trained_through() -> None:
    """No boxes, boxes outside of the grid, one class alone, no points: a finite loss with gradients everywhere."""
    points, boxes = moving_scene()
    nowhere = torch.zeros(0, 3)
    empty = PointCloudBatch(nowhere, nowhere[:, :1], torch.zeros(3, dtype=torch.int64), ("intensity",))
    beyond = Boxes3D(boxes.center + 500, boxes.size, boxes.yaw, boxes.velocity, boxes.label, boxes.track, boxes.offsets)
    cars = boxes.select(boxes.label == NAMES.index("Car"))
    cases = [(points, Boxes3D.empty(2)), (points, beyond), (points, cars), (empty, boxes), (empty, Boxes3D.empty(2))]
    for cloud, labels in cases:
        model = build()
        terms = model.loss(model(cloud), labels)
        terms.total().backward()
        assert torch.isfinite(terms.total())
        grads = [parameter.grad for parameter in model.parameters()]
        assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
        for head in model.head.heads_list:
            assert head.get_parameter("hm.1.bias").grad.abs().sum() > 0
        with torch.no_grad():
            assert model.eval().decode(model(cloud)).boxes.batch_size == 2


def test_more_boxes_than_openpcdets_tables_hold_are_learned() -> None:
    points, boxes = moving_scene()
    many = Boxes3D.make(
        torch.rand(700, 3) * torch.tensor([19.0, 19, 1]) - torch.tensor([0, 9.5, 1]),
        torch.ones(700, 3),
        torch.zeros(700),
        label=torch.full((700,), 2),
    )
    model = build()
    terms = model.loss(model(points), Boxes3D.collate([many, boxes.split()[1]]))
    assert terms.metrics["boxes"] == 350.5
    terms.total().backward()


def test_labels_outside_are_the_datasets() -> None:
    model = build(selection=CenterSelection(nms_iou=1.0)).eval()
    points, boxes = moving_scene()
    predictions = model(points)
    full = model.loss(predictions, boxes).terms
    unknown = boxes.select(boxes.label != 0)
    assert all(torch.equal(full[name], value) for name, value in model.loss(predictions, unknown).terms.items())
    predictions.heatmap.data[:] = torch.tensor([-9.0, -9.0, 9.0])[:, None, None]  # the head's third class, Cyclist
    assert set(model.decode(predictions).boxes.label.tolist()) == {NAMES.index("Cyclist")}
    with pytest.raises(ValueError, match="no class Tram; it has Van, Cyclist"):
        build(tasks=[["Car"], ["Tram"]])
    with pytest.raises(ValueError, match="one name: Car, Pedestrian, Car"):
        build(tasks=[["Car"], ["Pedestrian", "Car"]])


@pytest.mark.parametrize(("column", "value"), [("center", float("nan")), ("size", 0.0), ("yaw", float("inf"))])
def test_a_broken_box_is_named(column: str, value: float) -> None:
    model = build().eval()
    points, boxes = moving_scene()
    getattr(boxes, column)[5] = value
    with pytest.raises(ValueError, match="sweep kitti/000007 has a box"):
        model.loss(model(points), boxes, keys=("kitti/000003", "kitti/000007"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": []}, "tasks must be lists of class names"),
        ({"tasks": ["Car"]}, "tasks must be lists of class names"),
        ({"tasks": [["Car"], []]}, "none of them empty"),
        ({"loss": CenterLoss(code_weights=(1.0,) * 8)}, "must hold 10 numbers for velocity=True"),
        ({"loss": CenterLoss(), "velocity": False}, "must hold 8 numbers for velocity=False"),
        ({"selection": CenterSelection(suppression="circle", circle_radii=(1.0,))}, "each of the 2 tasks"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(**settings)


def test_bfloat16_autocast_gives_nearly_the_same_loss() -> None:
    model = build().eval()
    points, boxes = moving_scene()
    exact = model.loss(model(points), boxes).total()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(model(points), boxes).total()
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.02)


def test_head_is_initialised_and_named_as_openpcdets() -> None:
    torch.manual_seed(0)
    head = CenterHead(32, (4, 6), GRID, TASKS, has_velocity=True)
    names = [name.removeprefix("heads_list.1.") for name in head.state_dict() if name.startswith("heads_list.1.")]
    branches = list(dict.fromkeys(name.split(".")[0] for name in names))
    assert branches == ["center", "center_z", "dim", "rot", "vel", "hm"]
    norm = [f"0.1.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert names[:9] == [f"center.{n}" for n in ("0.0.weight", "0.0.bias", *norm, "1.weight", "1.bias")]
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
    for task, classes in zip(head.heads_list, TASKS, strict=True):
        assert (task.get_parameter("hm.1.bias") == -2.19).all() and len(task.get_parameter("hm.1.bias")) == len(classes)
        for branch in branches[:-1]:
            for layer, fan_in in (("0.0", 9 * 64), ("1", 9 * 64)):
                assert (task.get_parameter(f"{branch}.{layer}.bias") == 0).all()
                spread = task.get_parameter(f"{branch}.{layer}.weight").std().item()
                assert spread == pytest.approx(math.sqrt(2 / fan_in), rel=0.15)
        # The heat map's are torch's own: uniform within 1 / sqrt(fan_in).
        bound = 1 / math.sqrt(9 * 64)
        for parameter in ("hm.0.0.weight", "hm.0.0.bias", "hm.1.weight"):
            assert bound * 0.8 < task.get_parameter(parameter).abs().max() <= bound
    with pytest.raises(ValueError, match=r"built for a map of \(4, 6\) .* got \(6, 4\)"):
        head(BEVMap(torch.zeros(1, 32, 6, 4), GRID, (8, 8)))


def test_any_backbone_will_do() -> None:
    points, boxes = moving_scene()
    model = build_centerpoint(VoxelBackBone8x(GRID, 4, width=0.25), NAMES, neck=neck, tasks=[["Car"]])
    terms = model.loss(model(points), boxes)
    assert terms.weights == {"heatmap": 1.0, "box": 0.25} and torch.isfinite(terms.total())
