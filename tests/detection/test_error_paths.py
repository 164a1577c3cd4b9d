"""What a batch may hold: nothing, boxes out of reach, unknown or unseen classes, too many, values that are no number.

Each is trained through or named; for every backbone that an anchor-based detector may have.
"""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from equilidar.augment.group import SpatialGroup
from equilidar.augment.labelled import LabelledAugmentation
from equilidar.backbones import PillarEncoder, VoxelBackBone8x
from equilidar.data.loading import LoadedBatch
from equilidar.detection.decode import BoxSelection
from equilidar.detection.neck import BEVNeck
from equilidar.detection.second import SECOND, build_second
from equilidar.structures import Boxes3D, GridSpec, LabelledBatch, PointCloudBatch
from equilidar.training.finetune import FinetuneModule
from equilidar.training.launch import make_trainer
from equilidar.training.run_directory import open_run
from equilidar.training.schedules import constant
from equilidar.training.step_record import NonFiniteError
from tests.training.tiny_finetuning import NoScorer

from .openpcdet_case import ANCHORS

RANGE = [0, -9.6, -3, 19.2, 9.6, 1]
NAMES = ("Car", "Pedestrian", "Cyclist", "Van")
MOST = 20  # boxes that a sweep keeps


def neck(in_channels: int, in_shape: tuple[int, int]) -> BEVNeck:
    return BEVNeck(in_channels, in_shape, layers=(1, 1), channels=(16, 16), up_strides=(2, 4), up_channels=(16, 16))


def second() -> SECOND:
    grid = GridSpec.from_range(RANGE, [0.2, 0.2, 0.1])
    backbone = VoxelBackBone8x(grid, 4, width=0.5)
    return build_second(backbone, NAMES, neck=neck, anchors=ANCHORS, selection=BoxSelection(max_boxes=MOST))


def pointpillars() -> SECOND:
    backbone = PillarEncoder(GridSpec.from_range(RANGE, [0.4, 0.4, 4]), 4, channels=(16,))
    return build_second(backbone, NAMES, neck=neck, anchors=ANCHORS, selection=BoxSelection(max_boxes=MOST))


@pytest.fixture(params=[second, pointpillars])
def model(request) -> SECOND:
    torch.manual_seed(0)
    return request.param()


def clouds(lengths: list[int], seed: int = 0) -> PointCloudBatch:
    generator = torch.Generator().manual_seed(seed)
    num = sum(lengths)
    xyz = torch.rand(num, 3, generator=generator) * torch.tensor([19, 19, 3.9]) - torch.tensor([0, 9.5, 2.95])
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return PointCloudBatch(xyz, torch.rand(num, 1, generator=generator), offsets, ("intensity",))


def objects(num: int, label: int | None = None, seed: int = 0) -> Boxes3D:
    """Boxes of one sweep over the whole range, their sizes as of their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (num,), generator=generator) if label is None else torch.full((num,), label)
    sizes = torch.tensor([anchor.size for anchor in ANCHORS])[labels.clamp(max=2)]
    center = torch.rand(num, 3, generator=generator) * torch.tensor([19, 19, 0.5]) - torch.tensor([0, 9.5, 1])
    return Boxes3D.make(center, sizes, 6 * torch.rand(num, generator=generator), label=labels)


def assert_trained_through(model: SECOND, points: PointCloudBatch, boxes: Boxes3D) -> None:
    """Two steps: finite losses, a finite gradient for every parameter, and weights that move."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        terms = model.loss(model(points), boxes)
        terms.total().backward()
        assert all(bool(torch.isfinite(term)) for term in terms.terms.values())
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        before = model.head.conv_cls.bias.detach().clone()  # pyright: ignore[reportOptionalMemberAccess]
        optimizer.step()
        assert not torch.equal(before, model.head.conv_cls.bias)  # pyright: ignore[reportArgumentType]
    assert all(bool(value.float().isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("lengths", [[300, 200], [300, 0], [0, 200], [0, 0], [1, 0]], ids=str)
@pytest.mark.parametrize("numbers", [[0, 0], [3, 0], [0, 4]], ids=str)
def test_sweeps_without_boxes_and_sweeps_without_points(model, lengths, numbers) -> None:
    boxes = Boxes3D.collate([objects(num, seed=num) if num else Boxes3D.empty() for num in numbers])
    assert_trained_through(model, clouds(lengths), boxes)
    model.eval()
    found = model.decode(model(clouds(lengths)))
    assert found.boxes.batch_size == 2


def test_points_outside_of_the_grid_alone_are_an_empty_sweep(model) -> None:
    points = clouds([200, 150])
    gone = dataclasses.replace(points, xyz=points.xyz + 1000)
    assert_trained_through(model, gone, Boxes3D.collate([objects(3), objects(2)]))
    model.eval()
    empty = clouds([0, 0])
    assert torch.equal(model(gone).class_logits, model(empty).class_logits)


def test_boxes_outside_of_the_grid_are_background(model) -> None:
    points, boxes = clouds([300]), objects(5)
    far = dataclasses.replace(boxes, center=boxes.center + torch.tensor([500.0, 0, 0]))
    predictions = model.eval()(points)
    none = model.loss(predictions, Boxes3D.empty()).terms
    assert all(torch.equal(value, none[name]) for name, value in model.loss(predictions, far).terms.items())
    both = model.loss(predictions, boxes).terms
    beside = model.loss(predictions, joined(boxes, far)).terms
    assert all(torch.equal(value, both[name]) for name, value in beside.items())
    assert_trained_through(model.train(), points, far)


def joined(one: Boxes3D, other: Boxes3D) -> Boxes3D:
    """The boxes of both in one sweep."""
    return Boxes3D.make(
        torch.cat([one.center, other.center]),
        torch.cat([one.size, other.size]),
        torch.cat([one.yaw, other.yaw]),
        label=torch.cat([one.label, other.label]),
    )


def test_a_box_that_reaches_over_the_border_is_learned(model) -> None:
    edge = Boxes3D.make(
        torch.tensor([[19.1, 9.5, -0.9]]), torch.tensor([[4.0, 1.7, 1.5]]), torch.tensor([0.4]), label=torch.tensor([0])
    )
    terms = model.loss(model(clouds([300])), edge)
    assert terms.metrics["positive_anchors"] > 0
    assert_trained_through(model, clouds([300]), edge)


def test_classes_that_never_occur_become_background(model) -> None:
    """Of the detector's, and of the dataset's that the detector does not know."""
    points, optimizer = clouds([300, 200]), torch.optim.AdamW(model.parameters(), lr=1e-2)
    cars = Boxes3D.collate([joined(objects(4, label=0), objects(3, label=3)), objects(2, label=0)])
    for _ in range(15):
        optimizer.zero_grad()
        model.loss(model(points), cars).total().backward()
        optimizer.step()
    logits = model.eval()(points).class_logits
    assert bool(logits.isfinite().all())
    assert bool((logits[..., 1:].max(1).values < logits[..., :1].max(1).values).all())
    assert set(model.decode(model(points)).boxes.label.tolist()) <= {0, 1, 2}


def test_more_boxes_than_a_sweep_keeps(model) -> None:
    """All are targets; of what is found the best are kept, in every sweep as many."""
    points = clouds([300, 200])
    boxes = Boxes3D.collate([objects(600), objects(150, seed=1)])
    assert_trained_through(model, points, boxes)
    predictions = model.eval()(points)
    predictions.class_logits.data.uniform_(0, 6, generator=torch.Generator().manual_seed(0))
    predictions.box_deltas.data.zero_()
    found = model.decode(predictions)
    assert found.offsets.tolist() == [0, MOST, 2 * MOST]
    for scores in found.scores.split(MOST):
        assert bool((scores.diff() <= 0).all())
    unlimited = dataclasses.replace(model.selection, max_boxes=10_000)
    model.selection = unlimited
    everything = model.decode(predictions)
    first = everything.scores[: int(everything.offsets[1])]
    assert len(first) > MOST and torch.equal(first[:MOST], found.scores[:MOST])


def test_no_candidates_are_no_detections(model) -> None:
    predictions = model.eval()(clouds([300, 200]))
    predictions.class_logits.data.fill_(-20)
    assert model.decode(predictions).offsets.tolist() == [0, 0, 0]


def test_points_that_are_no_number_fall_into_no_cell(model) -> None:
    """Readers refuse such sweeps by name; whoever feeds points of his own gets what the others say."""
    points = clouds([300, 200])
    holes = points.xyz.clone()
    holes[::7] = torch.nan
    holes[3::11, 1] = torch.inf
    kept = points.select(holes.isfinite().all(1))
    model.eval()
    with torch.no_grad():
        got, expected = model(dataclasses.replace(points, xyz=holes)), model(kept)
    torch.testing.assert_close(got.class_logits, expected.class_logits)


def steps(model: nn.Module, batches: list[LabelledBatch], folder) -> None:
    grid = model.backbone.grid
    augmentation = LabelledAugmentation(grid, SpatialGroup((0, 0), (1, 1), 0.0, (0, 0)))
    module = FinetuneModule(
        model,
        augmentation,
        NoScorer(),
        optimizer=torch.optim.SGD,
        schedule=constant,  # pyright: ignore
    )
    with open_run("finetune", {"seed": 0}, [], force=False, runs=str(folder), run=None) as run:
        trainer = make_trainer(
            run, callbacks=[], accelerator="cpu", max_steps=len(batches), enable_progress_bar=False, limit_val_batches=0
        )
        trainer.fit(module, DataLoader([LoadedBatch(batch, []) for batch in batches], batch_size=None))


@pytest.mark.parametrize("what", ["points", "box"])
def test_a_sample_that_is_no_number_stops_the_run_and_is_named(model, what, tmp_path) -> None:
    batches = []
    for step in range(3):
        points, boxes = clouds([200, 150], step), Boxes3D.collate([objects(2, seed=step), objects(3, seed=step + 9)])
        if step == 1 and what == "points":
            points.features[250] = torch.nan
        if step == 1 and what == "box":
            boxes.size[3] = torch.nan
        keys = (f"drive/{step}a", f"drive/{step}b")
        batches.append(LabelledBatch(points, boxes, torch.arange(2), keys))
    if what == "box":
        with pytest.raises(ValueError, match="sweep drive/1b has a box with non-finite values"):
            steps(model, batches, tmp_path)
    else:
        with pytest.raises(NonFiniteError, match=r"not finite at step 1: .*classification = nan.*samples: .*drive/1b"):
            steps(model, batches, tmp_path)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
