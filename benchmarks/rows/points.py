"""Rows of ops on points: pairing, sampling, the way from sweeps to views, distance fields, interpolation, grouping."""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.frames import kitti_pair
from benchmarks.harness import Row
from equilidar.augment.group import SpatialGroup
from equilidar.augment.pipeline import ViewPipeline
from equilidar.backbones.voxel_plain import VoxelBackBone8x
from equilidar.ops.distance_transform import distance_transform, sample_field
from equilidar.ops.flow_pairing import pair_sweeps
from equilidar.ops.grouping import ball_query
from equilidar.ops.interpolate import interpolate_voxels
from equilidar.ops.neighbors import nearest
from equilidar.ops.sampling import farthest_points
from equilidar.ops.voxelize import occupied_voxels, voxelize_mean
from equilidar.structures import Affine3, FlowField, GridSpec, PointCloudBatch, SweepPairBatch
from equilidar.structures.offsets import from_lengths

KITTI = GridSpec.from_range((0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (0.05, 0.05, 0.1))
CIRCLE = GridSpec.from_range((-51.2, -51.2, -3.0, 51.2, 51.2, 1.0), (0.05, 0.05, 0.1))
COARSE = GridSpec.from_range((-51.2, -51.2, -3.0, 51.2, 51.2, 1.0), (0.2, 0.2, 0.2))


def rows(quick: bool) -> Iterator[Row]:
    """Yield the rows; `quick` takes every 50th point."""
    first, second = kitti_pair()
    step = 50 if quick else 1
    a, b = first.xyz[::step].contiguous(), second.xyz[::step].contiguous()
    yield from _pairing(a, b)
    yield _sampling(a, 64 if quick else 2048)
    yield from (_pipeline(a, b, size) for size in (1, 4))
    yield _distance_transform(b)
    yield _interpolate(a, b)
    yield _grouping(a)


def _whole(points: Tensor) -> Tensor:
    return from_lengths([len(points)])


def _pairing(a: Tensor, b: Tensor) -> Iterator[Row]:
    from scipy.spatial import cKDTree

    query, held = a.numpy(), b.numpy()
    ours = partial(nearest, a, _whole(a), b, _whole(b), 1.0)
    note = f"{len(a)} against {len(b)} points within 1 m, build and query"

    def tree() -> Any:
        return cKDTree(held).query(query, distance_upper_bound=1.0, workers=2)

    yield Row("pairing", ours, "scipy cKDTree, workers=2", tree, bar=2.0, note=note)

    def hybrid(o3d: Any) -> Callable[[], Any]:
        points, queries = (o3d.core.Tensor.from_numpy(cloud) for cloud in (held, query))

        def run() -> Any:
            search = o3d.core.nns.NearestNeighborSearch(points)
            search.hybrid_index(1.0)
            return search.hybrid_search(queries, 1.0, 1)

        return run

    # One round: with cells as large as the radius it takes half a minute.
    yield Row("pairing_open3d", ours, *_open3d("hybrid search", hybrid), bar=2.0, rounds=1, note=note)


def _sampling(points: Tensor, num: int) -> Row:
    def peer(o3d: Any) -> Callable[[], Any]:
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.double().numpy()))
        return lambda: cloud.farthest_point_down_sample(num)

    return Row(
        "sampling",
        partial(farthest_points, points, _whole(points), num),
        *_open3d("farthest_point_down_sample", peer),
        bar=2.0,
        rounds=5,
        note=f"{num} of {len(points)} points",
    )


def _open3d(name: str, peer: Callable[[Any], Callable[[], Any]]) -> tuple[str, Callable[[], Any] | None]:
    """Return what the peer is called and how to run it; Open3D is large and not asked for."""
    if importlib.util.find_spec("open3d") is None:
        return f"open3d {name}: not installed (pip install open3d)", None
    try:
        import open3d
    except (ImportError, OSError) as error:
        return f"open3d {name}: does not load ({error})", None
    return f"open3d {open3d.__version__} {name}", peer(open3d)


def _pipeline(a: Tensor, b: Tensor, batch_size: int) -> Row:
    batch, flow = _sweep_pairs(a, b, batch_size)
    pipeline = ViewPipeline(CIRCLE, SpatialGroup())
    backbone = VoxelBackBone8x(CIRCLE, 4).eval()
    voxels = voxelize_mean(pipeline(batch, flow).a.points, CIRCLE)

    def forward() -> None:
        with torch.no_grad():
            # A copy: without the rulebooks that an earlier pass has cached.
            backbone(dataclasses.replace(voxels))

    return Row(
        "pipeline" if batch_size == 1 else f"pipeline_batch{batch_size}",
        partial(prepare, pipeline, batch, flow),
        "VoxelBackBone8x forward on one view, rulebook included",
        forward,
        bar=2.0,
        rounds=5,
        note=f"two views, voxels of both and of the source, pairing within 1 m; {batch_size} x {len(a)} points, "
        f"{len(voxels.features)} voxels",
    )


def prepare(pipeline: ViewPipeline, batch: SweepPairBatch, flow: FlowField) -> None:
    """Do what stands between the loader and the backbone: views, voxels, and pairs by flow."""
    views = pipeline(batch, flow)
    source, target = views.source, views.a.points
    assert source is not None
    moved = source.view.points
    for points in (target, views.b.points, moved):
        voxelize_mean(points, pipeline.grid)
    identity = Affine3.identity(batch.batch_size)
    pair_sweeps(
        moved.xyz, source.warped - moved.xyz, source.valid, moved.offsets, identity, target.xyz, target.offsets, 1.0
    )  # fmt: skip


def _sweep_pairs(a: Tensor, b: Tensor, batch_size: int) -> tuple[SweepPairBatch, FlowField]:
    clouds = [
        PointCloudBatch(xyz.repeat(batch_size, 1), torch.zeros(batch_size * len(xyz), 1),
                        from_lengths([len(xyz)] * batch_size), ("intensity",))
        for xyz in (a, b)
    ]  # fmt: skip
    source, target = clouds
    batch = SweepPairBatch(
        source, target, Affine3.identity(batch_size), torch.full((batch_size,), 0.1), torch.arange(batch_size),
        tuple(f"pair{i}" for i in range(batch_size)),
    )  # fmt: skip
    valid = torch.ones(len(source.xyz), dtype=torch.bool)
    return batch, FlowField(torch.zeros_like(source.xyz), valid, valid.float())


def _distance_transform(points: Tensor) -> Row:
    from scipy.ndimage import distance_transform_edt

    _, coords = occupied_voxels(points, _whole(points), COARSE)
    occupied = torch.zeros(1, *COARSE.shape, dtype=torch.bool)
    occupied[tuple(coords.long().T)] = True
    empty, spacing = ~occupied[0].numpy(), COARSE.voxel_size[::-1]

    def ours() -> Tensor:
        return sample_field(distance_transform(occupied, COARSE.voxel_size), COARSE, points, _whole(points))

    return Row(
        "distance_transform",
        ours,
        "scipy distance_transform_edt, without lookup",
        lambda: distance_transform_edt(empty, spacing),
        rounds=3,
        note=f"{'x'.join(map(str, COARSE.shape))} cells of 0.2 m, {len(coords)} occupied, and lookup at "
        f"{len(points)} points",
    )


def _interpolate(a: Tensor, b: Tensor) -> Row:
    points = PointCloudBatch(b, torch.zeros(len(b), 29), _whole(b), tuple(f"c{i}" for i in range(29)))
    voxels = voxelize_mean(points, COARSE)
    item = torch.zeros(len(a), dtype=torch.int64)
    sparse = _scipy_interpolator(voxels.coords.numpy(), voxels.features.numpy())

    return Row(
        "interpolate",
        lambda: interpolate_voxels(voxels, a, item),
        "numpy: cells by searchsorted, features by fancy indexing",
        lambda: sparse(a.numpy()),
        rounds=5,
        note=f"32 channels of {len(voxels.features)} voxels at {len(a)} points, trilinear",
    )


def _scipy_interpolator(coords: np.ndarray, features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    z, y, x = COARSE.shape
    low, size = np.float32(COARSE.low), np.float32(COARSE.voxel_size)
    keys = (coords[:, 1].astype(np.int64) * y + coords[:, 2]) * x + coords[:, 3]
    order = keys.argsort()
    keys = keys[order]
    corners = np.stack(np.meshgrid(*[(0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)

    def read(points: np.ndarray) -> np.ndarray:
        position = (points - low) / size - np.float32(0.5)
        lowest = np.floor(position)
        share = (position - lowest)[:, None]
        cells = lowest.astype(np.int64)[:, None] + corners
        inside = ((cells >= 0) & (cells < np.array([x, y, z]))).all(-1)
        wanted = (cells[..., 2] * y + cells[..., 1]) * x + cells[..., 0]
        slot = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        weights = np.where(corners, share, 1 - share).prod(-1) * (inside & (keys[slot] == wanted))
        weights /= np.maximum(weights.sum(1, keepdims=True), 1e-9)
        return np.einsum("nk,nkc->nc", weights, features[order[slot]])

    return read


def _grouping(points: Tensor) -> Row:
    from scipy.spatial import cKDTree

    centers = points[farthest_points(points, _whole(points), min(2048, len(points)))[0]]
    xyz, around = points.numpy(), centers.numpy()
    return Row(
        "grouping",
        lambda: ball_query(points, _whole(points), centers, _whole(centers), 0.8, 16),
        "scipy cKDTree.query_ball_point, workers=2, all rows",
        lambda: cKDTree(xyz).query_ball_point(around, 0.8, workers=2),
        rounds=5,
        note=f"first 16 within 0.8 m of {len(centers)} centers in {len(points)} points",
    )
