"""Ops on boxes against vectorised NumPy and shapely."""

from collections.abc import Iterator

import numpy as np
import shapely
import torch
from torch import Tensor

from benchmarks.frames import kitti_pair
from benchmarks.harness import Row
from equilidar.ops.nms import rotated_nms
from equilidar.ops.points_in_boxes import points_in_boxes
from equilidar.ops.roi_pooling import neighbor_max
from equilidar.ops.rotated_iou import bev_iou
from equilidar.structures.offsets import from_lengths

Array = np.ndarray


def rows(quick: bool) -> Iterator[Row]:
    """Yield the rows; `quick` on small inputs."""
    yield _points_in_boxes(20 if quick else 200)
    yield _rotated_iou(100 if quick else 1000)
    yield _nms(200 if quick else 4096)
    yield _roi_pooling(4 if quick else 128)


def _points_in_boxes(num: int) -> Row:
    frame, _ = kitti_pair()
    boxes = traffic(num)
    args = frame.xyz, from_lengths([len(frame.xyz)]), boxes, from_lengths([num])
    points_array, boxes_array = frame.xyz.numpy(), boxes.numpy()
    _same(points_in_boxes(*args), numpy_points_in_boxes(points_array, boxes_array))
    return Row(
        "points_in_boxes",
        lambda: points_in_boxes(*args),
        "NumPy over all points, box by box",
        lambda: numpy_points_in_boxes(points_array, boxes_array),
        bar=20,
        note=f"{frame.name}: {len(frame.xyz)} points, {num} boxes",
    )


def _rotated_iou(num: int) -> Row:
    # Ten guesses at each object, as a detector emits them, in an order of its own on either side.
    a, b = detections(num, 10, seed=1), detections(num, 10, seed=2)
    array_a, array_b = a.double().numpy(), b.double().numpy()
    iou = bev_iou(a, b)
    np.testing.assert_allclose(iou, shapely_iou(array_a, array_b), atol=1e-5)
    return Row(
        "rotated_iou",
        lambda: bev_iou(a, b),
        "shapely, pairs from its tree",
        lambda: shapely_iou(array_a, array_b),
        bar=20,
        note=f"{num} x {num}, {int((iou > 0).sum())} pairs overlap",
    )


def _nms(num: int) -> Row:
    boxes = detections(num, 20, seed=1)
    scores = torch.rand(num, generator=torch.Generator().manual_seed(1))
    array, scores_array = boxes.double().numpy(), scores.numpy()
    kept = rotated_nms(boxes, scores, 0.1)
    np.testing.assert_array_equal(kept, shapely_nms(array, scores_array, 0.1))
    return Row(
        "nms",
        lambda: rotated_nms(boxes, scores, 0.1),
        "shapely, each kept box with its neighbours from the tree",
        lambda: shapely_nms(array, scores_array, 0.1),
        bar=20,
        note=f"{num} boxes, {len(kept)} kept at IoU 0.1",
    )


def _roi_pooling(num_rois: int) -> Row:
    # As Voxel R-CNN pools: 6 x 6 x 6 grid points for each RoI, 16 neighbours, 32 channels, a few thousand voxels.
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12000, 32, generator=generator, requires_grad=True)
    near = torch.randint(0, 12000, (num_rois * 216, 1), generator=generator)
    neighbors = (near + torch.randint(0, 60, (num_rois * 216, 16), generator=generator)).clamp_max(11999)
    neighbors[torch.rand(neighbors.shape, generator=generator) < 0.4] = -1

    def gathered() -> Tensor:
        values = features[neighbors.clamp_min(0)].masked_fill((neighbors < 0)[..., None], -torch.inf).amax(1)
        return torch.where(values > -torch.inf, values, 0)

    torch.testing.assert_close(neighbor_max(features, neighbors), gathered())
    return Row(
        "roi_pooling",
        lambda: torch.autograd.grad(neighbor_max(features, neighbors).sum(), features),
        "PyTorch: gather, then maximum",
        lambda: torch.autograd.grad(gathered().sum(), features),
        note=f"forward and backward, {num_rois} x 216 grid points, 16 neighbours, 32 channels",
    )


def traffic(num: int, seed: int = 0) -> Tensor:
    """Return boxes of cars (num, 7) at random within 70 m, float32."""
    u = torch.rand(num, 7, generator=torch.Generator().manual_seed(seed))
    center = torch.stack([140 * u[:, 0] - 70, 80 * u[:, 1] - 40, u[:, 2] - 1.5], 1)
    return torch.cat([center, torch.tensor([3.9, 1.6, 1.5]) * (0.8 + 0.4 * u[:, 3:6]), 6.28 * u[:, 6:]], 1)


def detections(num: int, guesses: int, seed: int) -> Tensor:
    """Return boxes (num, 7) in shuffled order: so many guesses at each of num / guesses cars, decimetres apart."""
    generator = torch.Generator().manual_seed(seed)
    boxes = traffic(-(-num // guesses)).repeat(guesses, 1)[:num]
    boxes = boxes + torch.randn(num, 7, generator=generator) * torch.tensor([0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1])
    return boxes[torch.randperm(num, generator=generator)]


def numpy_points_in_boxes(points: Array, boxes: Array) -> tuple[Array, Array]:
    """Return the first box of each point, -1 for none, and the number of points in each box."""
    first, counts = np.full(len(points), -1), np.zeros(len(boxes), np.int64)
    half, cos, sin = boxes[:, 3:6] / 2, np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    x, y, z = np.ascontiguousarray(points.T)
    for row in reversed(range(len(boxes))):
        dx, dy = x - boxes[row, 0], y - boxes[row, 1]
        inside = np.abs(dx * cos[row] + dy * sin[row]) <= half[row, 0]
        inside &= np.abs(dy * cos[row] - dx * sin[row]) <= half[row, 1]
        inside &= np.abs(z - boxes[row, 2]) <= half[row, 2]
        first[inside] = row
        counts[row] = np.count_nonzero(inside)
    return first, counts


def polygons(boxes: Array) -> Array:
    """Return the boxes seen from above as shapely's polygons."""
    unit = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    along, across = (unit * boxes[:, None, 3:5]).transpose(2, 0, 1)
    cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    return shapely.polygons(boxes[:, None, :2] + np.stack([along * cos - across * sin, along * sin + across * cos], -1))


def shapely_iou(a: Array, b: Array) -> Array:
    """Return the IoU of all pairs; only pairs that shapely's tree finds are intersected."""
    shapes_a, shapes_b = polygons(a), polygons(b)
    row, column = shapely.STRtree(shapes_b).query(shapes_a)
    overlap = shapely.area(shapely.intersection(shapes_a[row], shapes_b[column]))
    iou = np.zeros((len(a), len(b)))
    iou[row, column] = overlap / (a[row, 3] * a[row, 4] + b[column, 3] * b[column, 4] - overlap)
    return iou


def shapely_nms(boxes: Array, scores: Array, threshold: float) -> Array:
    """Return kept rows; a kept box is intersected with those of its neighbours that are still there, all at once."""
    order = np.argsort(-scores, kind="stable")
    shapes, area = polygons(boxes[order]), boxes[order, 3] * boxes[order, 4]
    row, column = shapely.STRtree(shapes).query(shapes)
    later = column > row
    row, column = row[later], column[later]
    begins = np.searchsorted(row, np.arange(len(boxes) + 1))
    alive = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        near = column[begins[i] : begins[i + 1]]
        near = near[alive[near]]
        overlap = shapely.area(shapely.intersection(shapes[i], shapes[near]))
        alive[near[overlap > threshold * (area[i] + area[near] - overlap)]] = False
    return order[alive]


def _same(ours: tuple[Tensor, Tensor], peer: tuple[Array, Array]) -> None:
    """Assert that both found the same, but for a few points within rounding of a face."""
    for one, other in zip(ours, peer, strict=True):
        assert np.mean(one.numpy() != other) < 0.02
