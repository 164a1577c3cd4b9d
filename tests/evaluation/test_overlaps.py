"""Overlaps against plain loops and shapely."""

import math

import numpy as np
import pytest
from shapely import affinity
from shapely.geometry import Polygon, box

from equilidar.evaluation.overlaps import image_overlaps, same_sweep_pairs, upright_overlaps


def _offsets(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def test_pairs_are_those_of_the_same_sweep_in_order() -> None:
    truth, found = [2, 0, 3, 1], [3, 2, 0, 2]
    rows, columns = same_sweep_pairs(_offsets(truth), _offsets(found))
    expected = []
    for frame in range(4):
        for g in range(truth[frame]):
            for d in range(found[frame]):
                expected.append((sum(truth[:frame]) + g, sum(found[:frame]) + d))
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


def _image_boxes(rng: np.random.Generator, num: int) -> np.ndarray:
    low = rng.uniform(0, 100, (num, 2))
    return np.concatenate([low, low + rng.uniform(1, 60, (num, 2))], 1)


def test_image_overlap_is_the_ratio_of_areas() -> None:
    rng = np.random.default_rng(0)
    truth, found = _image_boxes(rng, 20), _image_boxes(rng, 30)
    pairs = same_sweep_pairs(_offsets([20]), _offsets([30]))
    union = image_overlaps(truth, found, pairs)
    covered = image_overlaps(truth, found, pairs, of_detection=True)
    assert 0 < len(union.value) < 600
    for g, d, value, part in zip(union.ground_truth, union.detection, union.value, covered.value, strict=True):
        a, b = box(*truth[g]), box(*found[d])
        assert value == pytest.approx(a.intersection(b).area / a.union(b).area, abs=1e-12)
        assert part == pytest.approx(a.intersection(b).area / b.area, abs=1e-12)
    listed = set(zip(union.ground_truth.tolist(), union.detection.tolist(), strict=True))
    for g, d in zip(*pairs, strict=True):
        assert ((g, d) in listed) == (box(*truth[g]).intersection(box(*found[d])).area > 0)


def _footprint(row: np.ndarray) -> Polygon:
    flat = box(-row[3] / 2, -row[4] / 2, row[3] / 2, row[4] / 2)
    return affinity.translate(affinity.rotate(flat, row[6], origin=(0, 0), use_radians=True), row[0], row[1])


def _upright_boxes(rng: np.random.Generator, num: int) -> np.ndarray:
    center = rng.uniform((-6, -6, -1), (6, 6, 1), (num, 3))
    return np.concatenate([center, rng.uniform(0.5, 5, (num, 3)), rng.uniform(-9, 9, (num, 1))], 1)


def test_upright_overlap_is_the_ratio_of_areas_and_volumes() -> None:
    rng = np.random.default_rng(1)
    truth, found = _upright_boxes(rng, 20), _upright_boxes(rng, 25)
    truth[:3, :6] = found[:3, :6]
    truth[:3, 6] = found[:3, 6] + np.array([0, math.pi / 2, math.pi])
    pairs = same_sweep_pairs(_offsets([20]), _offsets([25]))
    bev, volume = upright_overlaps(truth, found, pairs)
    areas, volumes = np.zeros((20, 25)), np.zeros((20, 25))
    areas[bev.ground_truth, bev.detection] = bev.value
    volumes[volume.ground_truth, volume.detection] = volume.value
    for g, a in enumerate(truth):
        for d, b in enumerate(found):
            shared = _footprint(a).intersection(_footprint(b)).area
            assert areas[g, d] == pytest.approx(shared / (a[3] * a[4] + b[3] * b[4] - shared), abs=1e-9)
            height = max(0, min(a[2] + a[5] / 2, b[2] + b[5] / 2) - max(a[2] - a[5] / 2, b[2] - b[5] / 2))
            whole = a[3:6].prod() + b[3:6].prod() - shared * height
            assert volumes[g, d] == pytest.approx(shared * height / whole, abs=1e-9)
    assert areas[0, 0] == pytest.approx(1)
    assert areas[2, 2] == pytest.approx(1)


def test_boxes_without_a_place_in_space_overlap_nothing() -> None:
    nowhere = np.array([[-1000.0, -1000, 1000, -1, -1, -1, 10]])
    bev, volume = upright_overlaps(nowhere, nowhere, same_sweep_pairs(_offsets([1]), _offsets([1])))
    assert len(bev.value) == len(volume.value) == 0


def test_only_pairs_above_the_minimum_are_kept() -> None:
    square = np.array([[0.0, 0, 10, 10]])
    half = np.array([[0.0, 0, 10, 5]])
    overlaps = image_overlaps(square, half, same_sweep_pairs(_offsets([1]), _offsets([1])))
    assert len(overlaps.above(0.5).value) == 0  # strictly above
    assert len(overlaps.above(0.49).value) == 1
