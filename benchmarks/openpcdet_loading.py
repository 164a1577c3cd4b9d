"""OpenPCDet's way of loading, for comparison: the worker augments and voxelizes, NumPy arrays are sent by pickling.

What its `DatasetTemplate.prepare_data` and `collate_batch` do to points, written anew after pcdet/datasets of
github.com/open-mmlab/OpenPCDet: read the file, mirror, rotate, scale, cut to the range, shuffle, hard voxels by
spconv's compiled CPU generator (5 points a voxel, 16000 voxels, as its configs for KITTI have it). Without gt-sampling,
boxes and calibration, which pretraining has not: that is work left out in its favour.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

Arrays = dict[str, NDArray]

POINT_RANGE = np.array([0.0, -40.0, -3.0, 70.4, 40.0, 1.0], dtype=np.float32)
VOXEL_SIZE = [0.05, 0.05, 0.1]
MAX_POINTS, MAX_VOXELS = 5, 16000


class VoxelizedPairs(Dataset):
    """Pairs of frames, each as OpenPCDet prepares one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._pairs = list(itertools.pairwise(paths))
        self._generator = None

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Arrays, Arrays]:
        source, target = self._pairs[index]
        return self._prepare(source), self._prepare(target)

    def _prepare(self, path: Path) -> Arrays:
        points = np.fromfile(str(path), dtype=np.float32).reshape(-1, 4)
        if np.random.choice([False, True]):  # noqa: NPY002 (as there)
            points[:, 1] = -points[:, 1]
        points = rotate(points, np.random.uniform(-np.pi / 4, np.pi / 4))  # noqa: NPY002
        points[:, :3] *= np.random.uniform(0.95, 1.05)  # noqa: NPY002
        low, high = POINT_RANGE[:3], POINT_RANGE[3:]
        inside = (
            (points[:, 0] >= low[0]) & (points[:, 0] <= high[0]) & (points[:, 1] >= low[1]) & (points[:, 1] <= high[1])
        )
        points = points[inside]
        points = points[np.random.permutation(len(points))]  # noqa: NPY002
        voxels, coordinates, num_points = self._voxelize(points)
        return {"points": points, "voxels": voxels, "coordinates": coordinates, "num_points": num_points}

    def _voxelize(self, points: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        from cumm import tensorview
        from spconv.utils import Point2VoxelCPU3d

        if self._generator is None:
            self._generator = Point2VoxelCPU3d(VOXEL_SIZE, POINT_RANGE.tolist(), 4, MAX_VOXELS, MAX_POINTS)
        voxels, coordinates, num_points = self._generator.point_to_voxel(tensorview.from_numpy(points))
        return voxels.numpy(), coordinates.numpy(), num_points.numpy()  # copies, as there


def rotate(points: NDArray, angle: float) -> NDArray:
    """Turn about z by a matrix product in torch, as `common_utils.rotate_points_along_z` does."""
    batch = torch.from_numpy(points[np.newaxis])
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = torch.tensor([[[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]]], dtype=torch.float32)
    return torch.cat([torch.matmul(batch[:, :, :3], matrix), batch[:, :, 3:]], -1).numpy()[0]


def collate(samples: list[tuple[Arrays, Arrays]]) -> list[Arrays]:
    """Concatenate source and target frames, the number of the item before each point and voxel."""
    return [_collate_frames(list(frames)) for frames in zip(*samples, strict=True)]


def _collate_frames(frames: list[Arrays]) -> Arrays:
    batch: Arrays = {}
    for name in frames[0]:
        parts = [frame[name] for frame in frames]
        if name in ("points", "coordinates"):
            parts = [np.pad(part, ((0, 0), (1, 0)), constant_values=i) for i, part in enumerate(parts)]
        batch[name] = np.concatenate(parts)
    return batch


def make_openpcdet_loader(pairs: Dataset, batch_size: int, num_workers: int) -> DataLoader:
    """Return a loader of collated `VoxelizedPairs`."""
    return DataLoader(
        pairs,
        batch_size=batch_size,
        shuffle=True,
        num_workers=num_workers,
        collate_fn=collate,
        drop_last=True,
    )
