import dataclasses
import typing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar import structures
from equilidar.structures import (
    Affine3,
    Boxes3D,
    Detections,
    FlowField,
    LabelledBatch,
    LabelledSweep,
    PairFeatures,
    SensorContract,
    Sweep,
    SweepPair,
    SweepPairBatch,
    TransformDraw,
    ViewPair,
)
from equilidar.structures.moving import Movable, map_tensors

from .strategies import assert_same, lengths

CONTRACT = SensorContract(("intensity",), (255.0,), "sensor")


def sweep(num, key="set/seq/0", timestamp=0.0):
    return Sweep(torch.rand(num, 3), torch.rand(num, 1), CONTRACT, key, timestamp)


def pair(num, flow=True, number=0):
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = number
    return SweepPair(
        sweep(num, f"set/seq/{number}", number / 10),
        sweep(num + 1, f"set/seq/{number + 1}", number / 10 + 0.1),
        pose,
        torch.rand(num, 3) if flow else None,
        torch.rand(num) < 0.5 if flow else None,
    )


@given(lengths)
def test_pairs_collate_in_order(counts):
    pairs = [pair(num, number=i) for i, num in enumerate(counts)]
    batch = SweepPairBatch.collate(pairs, seeds=[7 + i for i in range(len(pairs))])
    assert batch.batch_size == len(counts)
    for item, (one, source, target) in enumerate(zip(pairs, batch.source.split(), batch.target.split(), strict=True)):
        assert_same(source, one.source.points())
        assert_same(target, one.target.points())
        assert torch.equal(batch.target_T_source.matrix()[item], one.target_T_source.float())
        start, stop = batch.source.offsets[item : item + 2].tolist()
        assert torch.equal(batch.flow[start:stop], one.flow)
        assert torch.equal(batch.flow_valid[start:stop], one.flow_valid)
    torch.testing.assert_close(batch.gap, torch.full((len(counts),), 0.1))
    assert batch.seeds.tolist() == [7 + i for i in range(len(counts))]
    assert batch.keys == tuple(f"set/seq/{i}->set/seq/{i + 1}" for i in range(len(counts)))


def test_flow_of_some_pairs_only_is_no_flow():
    batch = SweepPairBatch.collate([pair(3), pair(2, flow=False)])
    assert batch.flow is None and batch.flow_valid is None


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="empty list"):
        SweepPairBatch.collate([])


def test_a_contract_states_a_scale_for_each_channel():
    with pytest.raises(ValueError, match="2 channels but 1 scales"):
        SensorContract(("intensity", "time"), (1.0,), "sensor")


@given(lengths)
def test_labelled_sweeps_collate_in_order(counts):
    items = []
    for i, num in enumerate(counts):
        boxes = Boxes3D.make(torch.full((i, 3), float(i)), torch.ones(i, 3), torch.zeros(i))
        items.append(LabelledSweep(sweep(num, f"set/seq/{i}"), boxes))
    batch = LabelledBatch.collate(items)
    assert batch.keys == tuple(item.key for item in items) and batch.batch_size == len(items)
    assert batch.boxes.batch_size == batch.points.batch_size == len(items)
    for item, points, boxes in zip(items, batch.points.split(), batch.boxes.split(), strict=True):
        assert_same(points, item.sweep.points())
        assert_same(boxes, item.boxes)


def held_types(kind, seen=None):
    """Return every type that a value of this type can hold, by its annotations."""
    seen = set() if seen is None else seen
    if kind in seen:
        return seen
    seen.add(kind)
    for inner in typing.get_args(kind):
        held_types(inner, seen)
    if dataclasses.is_dataclass(kind):
        for hint in typing.get_type_hints(kind).values():
            held_types(hint, seen)
    return seen


LABEL_TYPES = {Boxes3D, Detections, LabelledBatch, LabelledSweep, structures.ObjectAnnotations}


@pytest.mark.parametrize("kind", [Sweep, SweepPair, SweepPairBatch, FlowField, ViewPair, PairFeatures])
def test_pretraining_types_cannot_hold_a_box(kind):
    held = held_types(kind)
    assert torch.Tensor in held or any("Float" in str(inner) for inner in held), "the walk sees fields"
    assert not held & LABEL_TYPES
    assert typing.Any not in held - held_types(structures.SparseVoxels), "Any would be a back door"


def test_the_walk_would_find_a_box():
    assert Boxes3D in held_types(LabelledBatch) and Boxes3D in held_types(Detections | None)


@pytest.mark.parametrize(
    "kind", [kind for kind in vars(structures).values() if isinstance(kind, type) and issubclass(kind, Movable)]
)
def test_batch_types_are_slotted_and_not_frozen(kind):
    assert dataclasses.is_dataclass(kind) and "__slots__" in vars(kind) and not kind.__dataclass_params__.frozen
    assert not any("__dict__" in vars(base) for base in kind.__mro__[:-1])


def test_to_reaches_nested_batches():
    moved = SweepPairBatch.collate([pair(3), pair(0)]).to("meta")
    tensors = []
    map_tensors(moved, lambda tensor: tensors.append(tensor) or tensor)
    assert len(tensors) == 3 + 3 + 2 + 1 + 1 + 2
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.source.channels == ("intensity",) and len(moved.keys) == 2


def test_containers_are_walked_and_the_rest_is_kept():
    value = {"a": [torch.zeros(1), "text"], "b": (torch.zeros(2), None), "c": CONTRACT}
    moved = map_tensors(value, lambda tensor: tensor + 1)
    assert moved["a"][0] == 1 and moved["a"][1] == "text" and moved["b"][1] is None
    assert moved["b"][0].tolist() == [1, 1] and moved["c"] == CONTRACT
    assert value["a"][0] == 0


@given(st.floats(-3, 3), st.floats(0.5, 2), st.booleans())
def test_a_draw_is_its_transform(yaw, scale, flip):
    shift = torch.tensor([[1.0, 2.0, 3.0]])
    draw = TransformDraw(torch.tensor([yaw]), torch.tensor([scale]), torch.tensor([flip]), shift)
    expected = Affine3.from_parts(yaw=draw.yaw, scale=draw.scale, flip_y=draw.flip_y, translation=shift)
    assert torch.equal(draw.affine().matrix(), expected.matrix())
    assert float(torch.linalg.det(draw.affine().linear)) * (-1 if flip else 1) > 0
