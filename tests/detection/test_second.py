import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.detection.anchors import AnchorClass
from equilidar.detection.neck import BEVNeck
from equilidar.detection.second import SECOND, build_second
from equilidar.ops.rotated_iou import iou_3d_pairs
from equilidar.structures import Boxes3D, GridSpec, PointCloudBatch

from .learning import learn_by_heart
from .openpcdet_case import ANCHORS

GRID = GridSpec.from_range([0, -9.6, -3, 19.2, 9.6, 1], [0.2, 0.2, 0.1])
NAMES = ("Van", "Cyclist", "Car", "Pedestrian")  # the dataset's order is not the head's


def neck(in_channels: int, in_shape: tuple[int, int]) -> BEVNeck:
    return BEVNeck(in_channels, in_shape, layers=(1, 1), channels=(24, 24), up_strides=(2, 4), up_channels=(24, 24))


def build(**kwargs) -> SECOND:
    torch.manual_seed(0)
    return build_second(VoxelBackBone8x(GRID, 4, width=0.5), NAMES, neck=neck, anchors=ANCHORS, **kwargs)


def scene(seed: int = 0) -> tuple[PointCloudBatch, Boxes3D]:
    """Two sweeps: cars, a pedestrian, a cyclist and a van as points on their faces, on a plane."""
    generator = torch.Generator().manual_seed(seed)
    boxes = Boxes3D.make(
        torch.tensor([[6.0, 3, -0.9], [13, -5, -0.9], [8, -2, -0.85], [14, 5, -0.85], [10, 0, -0.7], [5, -6, -0.9]]),
        torch.tensor([[4.1, 1.7, 1.5], [3.7, 1.6, 1.6], [0.8, 0.7, 1.7], [1.8, 0.6, 1.7], [5, 2, 2], [4, 1.6, 1.5]]),
        torch.tensor([0.2, 2.0, 0.5, -1.2, 0.4, -3.0]),
        label=torch.tensor([2, 2, 3, 1, 0, 2]),
        offsets=torch.tensor([0, 5, 6]),
    )
    clouds = []
    for item in boxes.split():
        ground = torch.rand(1500, 3, generator=generator) * torch.tensor([19.0, 19, 0.05]) - torch.tensor(
            [0, 9.5, 1.75]
        )
        faces = torch.rand(len(item), 150, 3, generator=generator) - 0.5
        faces[:, :75, 0], faces[:, 75:, 1] = 0.5, 0.5
        local = faces * item.size[:, None]
        cos, sin = item.yaw.cos()[:, None], item.yaw.sin()[:, None]
        turned = torch.stack(
            [local[..., 0] * cos - local[..., 1] * sin, local[..., 0] * sin + local[..., 1] * cos, local[..., 2]], -1
        )
        xyz = torch.cat([ground, (turned + item.center[:, None]).flatten(0, 1)])
        clouds.append(PointCloudBatch(xyz, torch.zeros(len(xyz), 1), torch.tensor([0, len(xyz)]), ("intensity",)))
    return PointCloudBatch.collate(clouds), boxes


def test_it_learns_what_it_is_shown() -> None:
    """Learn one batch by heart: every box of a known class is found, at its place, with its class and heading."""
    model = build()
    points, boxes = scene()
    learn_by_heart(model, points, boxes, steps=150)
    with torch.no_grad():
        found = model.decode(model(points))
    for truth, got, scores in zip(
        boxes.split(), found.boxes.split(), found.scores.tensor_split(found.offsets[1:-1]), strict=True
    ):
        truth = truth.select(truth.label != 0)
        sure = got.select(scores > 0.5)
        assert len(sure) == len(truth)
        order = [int((sure.center - center).norm(dim=1).argmin()) for center in truth.center]
        assert sure.label[order].tolist() == truth.label.tolist()
        assert (iou_3d_pairs(sure.as_tensor()[order], truth.as_tensor()) > 0.7).all()
        assert (torch.cos(sure.yaw[order] - truth.yaw) > 0.95).all()


def test_nothing_there_is_trained_through() -> None:
    """No boxes, boxes outside of the grid, no points at all: a finite loss with gradients everywhere."""
    points, boxes = scene()
    nowhere = torch.zeros(0, 3)
    empty = PointCloudBatch(nowhere, nowhere[:, :1], torch.zeros(3, dtype=torch.int64), ("intensity",))
    beyond = Boxes3D(boxes.center + 500, boxes.size, boxes.yaw, boxes.velocity, boxes.label, boxes.track, boxes.offsets)
    for cloud, labels in ((points, Boxes3D.empty(2)), (points, beyond), (empty, boxes), (empty, Boxes3D.empty(2))):
        model = build()
        terms = model.loss(model(cloud), labels)
        terms.total().backward()
        assert torch.isfinite(terms.total())
        grads = [parameter.grad for parameter in model.parameters()]
        assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
        assert model.head.conv_cls.bias.grad.abs().sum() > 0


def test_a_sweep_without_boxes_beside_one_with() -> None:
    model = build().eval()
    points, boxes = scene()
    one, none = boxes.split()[0], Boxes3D.empty()
    together = model.loss(model(points), Boxes3D.collate([one, none])).terms
    first, second = points.split()
    alone = [model.loss(model(first), one).terms, model.loss(model(second), none).terms]
    for name, value in together.items():
        torch.testing.assert_close(value, (alone[0][name] + alone[1][name]) / 2, rtol=1e-4, atol=1e-6)


def test_labels_outside_are_the_datasets() -> None:
    model = build().eval()
    points, boxes = scene()
    predictions = model(points)
    full = model.loss(predictions, boxes).terms
    unknown = boxes.select(boxes.label != 0)
    assert all(torch.equal(full[name], value) for name, value in model.loss(predictions, unknown).terms.items())
    odd = Boxes3D(
        boxes.center,
        boxes.size,
        boxes.yaw,
        boxes.velocity,
        boxes.label - (boxes.label == 0) * 1,
        boxes.track,
        boxes.offsets,
    )
    assert all(torch.equal(full[name], value) for name, value in model.loss(predictions, odd).terms.items())
    predictions.class_logits.data[:] = torch.tensor([-9.0, -9.0, 9.0])  # the head's third class, Cyclist
    assert set(model.decode(predictions).boxes.label.tolist()) == {NAMES.index("Cyclist")}
    with pytest.raises(ValueError, match="no class Tram; it has Van, Cyclist"):
        build_second(
            VoxelBackBone8x(GRID, 4), NAMES, neck=neck, anchors=[AnchorClass("Tram", (20.0, 3.0, 4.0), -1.8, 0.5, 0.3)]
        )
    with pytest.raises(ValueError, match="one name: Car, Car"):
        build_second(VoxelBackBone8x(GRID, 4), NAMES, neck=neck, anchors=[ANCHORS[0], ANCHORS[0]])


@pytest.mark.parametrize(("column", "value"), [("center", float("nan")), ("size", 0.0), ("yaw", float("inf"))])
def test_a_broken_box_is_named(column: str, value: float) -> None:
    model = build().eval()
    points, boxes = scene()
    predictions = model(points)
    getattr(boxes, column)[5] = value
    with pytest.raises(ValueError, match="sweep kitti/000007 has a box"):
        model.loss(predictions, boxes, keys=("kitti/000003", "kitti/000007"))
    with pytest.raises(ValueError, match="sweep 1 of the batch"):
        model.loss(predictions, boxes)


def test_bfloat16_autocast_gives_nearly_the_same_loss() -> None:
    model = build().eval()
    points, boxes = scene()
    exact = model.loss(model(points), boxes).total()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.loss(model(points), boxes).total()
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.02)
