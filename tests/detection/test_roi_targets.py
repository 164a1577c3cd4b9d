import dataclasses
import math

import numpy as np
import pytest
import torch
from shapely.affinity import rotate, translate
from shapely.geometry import box as rectangle

from equilidar.detection.proposals import Proposals
from equilidar.detection.roi_targets import RoISampler, best_boxes
from equilidar.structures import Boxes3D

SAMPLER = RoISampler(num=16)


def volume_iou(a: np.ndarray, b: np.ndarray) -> float:
    def footprint(x):
        flat = rotate(rectangle(-x[3] / 2, -x[4] / 2, x[3] / 2, x[4] / 2), math.degrees(x[6]), origin=(0, 0))
        return translate(flat, x[0], x[1])

    height = min(a[2] + a[5] / 2, b[2] + b[5] / 2) - max(a[2] - a[5] / 2, b[2] - b[5] / 2)
    shared = footprint(a).intersection(footprint(b)).area * max(height, 0.0)
    return shared / (a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - shared)


def scene(seed: int, num: int = 24) -> tuple[Proposals, Boxes3D]:
    """Three sweeps: objects of two classes and one unknown, proposals around them; the second sweep has no object."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, 4, 4, 7])
    rows = torch.rand(7, 7, generator=generator) * torch.tensor([8, 8, 1, 2, 1, 1, 6.0]) + torch.tensor(
        [0, 0, -1, 2.0, 1, 1, 0]
    )
    label = torch.tensor([0, 1, 0, -1, 1, 1, 0])
    boxes = Boxes3D.make(rows[:, :3], rows[:, 3:6], rows[:, 6], label=label, offsets=offsets)
    spans = ((0, 4), (0, 7), (4, 7))
    picked = torch.stack([torch.randint(*span, (num,), generator=generator) for span in spans])
    noise = torch.randn(3, num, 7, generator=generator) * torch.tensor([0.5, 0.3, 0.1, 0.1, 0.1, 0.1, 0.2])
    rois = rows[picked] + noise * torch.rand(3, num, 1, generator=generator)
    labels = torch.where(torch.rand(3, num, generator=generator) < 0.8, label[picked], 0).clamp_min(0)
    valid = torch.arange(num) < torch.tensor([[num], [num - 3], [num - 8]])
    return Proposals(rois, labels, valid, torch.ones(3, dtype=torch.bool)), boxes


def reference_best(proposals: Proposals, boxes: Boxes3D) -> tuple[np.ndarray, np.ndarray]:
    iou = np.zeros(proposals.valid.shape)
    match = np.full(proposals.valid.shape, len(boxes))
    rows = boxes.as_tensor().numpy()
    for item in range(len(iou)):
        for place in range(iou.shape[1]):
            for row in range(int(boxes.offsets[item]), int(boxes.offsets[item + 1])):
                if not proposals.valid[item, place] or boxes.label[row] != proposals.labels[item, place]:
                    continue
                value = volume_iou(proposals.boxes[item, place].numpy(), rows[row])
                if value > iou[item, place]:
                    iou[item, place], match[item, place] = value, row
    return iou, match


@pytest.mark.parametrize("seed", range(3))
def test_each_proposal_is_compared_with_objects_of_its_class(seed: int) -> None:
    proposals, boxes = scene(seed)
    iou, match = best_boxes(proposals, boxes)
    expected, rows = reference_best(proposals, boxes)
    np.testing.assert_allclose(iou.numpy(), expected, atol=1e-5)
    assert (match.numpy() == rows)[expected > 1e-4].all()
    assert (match.numpy() == len(boxes))[iou.numpy() == 0].all()
    assert (expected > 0.55).any() and (expected == 0).any()


def reference_draw(sampler: RoISampler, iou: np.ndarray, valid: np.ndarray, order: np.ndarray, numbers: np.ndarray):
    """One sweep, list by list; None if there is nothing to draw from."""
    places = np.flatnonzero(valid)
    foreground = [p for p in places if iou[p] >= min(sampler.foreground, sampler.score_high)]
    foreground.sort(key=lambda p: order[p])
    easy = [p for p in places if iou[p] < sampler.hard]
    hard = [p for p in places if sampler.hard <= iou[p] < sampler.foreground]
    drawn: list[int] = []

    def again(rows: list[int], count: int) -> None:
        for _ in range(count):
            drawn.append(rows[int(np.float32(numbers[len(drawn)]) * np.float32(len(rows)))])

    if foreground and (easy or hard):
        count = min(len(foreground), int(np.round(sampler.foreground_share * sampler.num)))
        drawn += foreground[:count]
    elif foreground:
        again(foreground, sampler.num)
    left = sampler.num - len(drawn)
    if easy and hard:
        count = min(int(left * sampler.hard_share), len(hard))
        again(hard, count)
        again(easy, left - count)
    elif easy or hard:
        again(easy or hard, left)
    return drawn if drawn else None


@pytest.mark.parametrize("seed", range(20))
def test_draw_follows_the_rule(seed: int) -> None:
    """Given the random numbers; sweeps with each kind of proposals missing, and one without any."""
    generator = np.random.default_rng(seed)
    num, sampler = 40, RoISampler(num=int(generator.integers(1, 33)))
    kinds = [(0.0, 0.05), (0.2, 0.5), (0.6, 1.0)]
    iou = np.zeros((9, num), np.float32)
    for item in range(8):
        chosen = [kind for bit, kind in enumerate(kinds) if item >> bit & 1] or kinds
        for place in range(num):
            iou[item, place] = generator.uniform(*chosen[generator.integers(len(chosen))])
    valid = np.arange(num) < generator.integers(1, num + 1, (9, 1))
    valid[8] = False
    order, numbers = generator.random((9, num), np.float32), generator.random((9, sampler.num), np.float32)
    got = sampler.draw(*(torch.from_numpy(array) for array in (iou, valid, order, numbers)))
    for item in range(8):
        assert got[item].tolist() == reference_draw(sampler, iou[item], valid[item], order[item], numbers[item]), item


def test_targets_of_the_drawn() -> None:
    proposals, boxes = scene(1, num=60)
    targets = SAMPLER(proposals, boxes, torch.tensor([3, 4, 5]))
    iou, match = reference_best(proposals, boxes)
    assert targets.foreground.any() and not targets.foreground.all()
    for item in range(3):
        for place in range(16):
            roi = targets.rois[item, place]
            row = int((proposals.boxes[item] == roi).all(1).nonzero()[0])
            assert proposals.valid[item, row]
            value = iou[item, row]
            score = 1.0 if value > 0.75 else 0.0 if value < 0.25 else (value - 0.25) / 0.5
            assert targets.scores[item, place].item() == pytest.approx(score, abs=1e-4)
            assert targets.foreground[item, place].item() == (value > 0.55)
            expected = boxes.as_tensor()[match[item, row]] if value > 0.55 else roi
            assert torch.equal(targets.boxes[item, place], expected)


def test_draw_depends_on_each_sweeps_seed_alone() -> None:
    proposals, boxes = scene(2, num=60)
    seeds = torch.tensor([7, 8, 9])
    together = SAMPLER(proposals, boxes, seeds)
    again = SAMPLER(proposals, boxes, seeds)
    assert torch.equal(together.rois, again.rois)
    assert not torch.equal(together.rois[0], SAMPLER(proposals, boxes, seeds + 1).rois[0])
    parts = boxes.split()
    for item in range(3):
        parts_of = (proposals.boxes, proposals.labels, proposals.valid, proposals.finite)
        one = Proposals(*(values[item, None] for values in parts_of))
        alone = SAMPLER(one, parts[item], seeds[item, None])
        for name in ("rois", "boxes", "foreground", "scores"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[item]), name


def test_without_objects_or_proposals() -> None:
    proposals, _ = scene(0)
    targets = SAMPLER(proposals, Boxes3D.empty(3), torch.arange(3))
    assert not targets.foreground.any() and not targets.scores.any()
    nothing = dataclasses.replace(proposals, valid=torch.zeros_like(proposals.valid))
    _, boxes = scene(0)
    targets = SAMPLER(nothing, boxes, torch.arange(3))
    assert not targets.foreground.any() and (targets.scores == -1).all()


@pytest.mark.parametrize("wrong", [{"num": 0}, {"foreground_share": 1.5}, {"hard": 0.6}, {"score_low": 0.8}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="roi sampler"):
        RoISampler(**wrong)  # type: ignore[arg-type]
