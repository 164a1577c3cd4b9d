"""Reading and comparing what OpenPCDet gave: whole arrays, float16 copies, samples or sums, whatever is there."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from equilidar.detection.anchors import AnchorClass
from equilidar.structures import Boxes3D, GridSpec, PointCloudBatch

Arrays = Mapping[str, np.ndarray]

# cfgs/kitti_models/second.yaml, ANCHOR_GENERATOR_CONFIG.
ANCHORS = (
    AnchorClass("Car", (3.9, 1.6, 1.56), -1.78, 0.6, 0.45),
    AnchorClass("Pedestrian", (0.8, 0.6, 1.73), -0.6, 0.5, 0.35),
    AnchorClass("Cyclist", (1.76, 0.6, 1.73), -0.6, 0.5, 0.35),
)


def load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        pytest.skip(f"no {path.name} in {path.parent.name}")
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def grid_of(case: Arrays) -> GridSpec:
    """The stored range is float32; rounding gives back the numbers of the config."""
    point_range = [round(float(value), 5) for value in case["meta/point_cloud_range"]]
    grid = GridSpec.from_range(point_range, [round(float(value), 5) for value in case["meta/voxel_size"]])
    if "meta/grid_size_xyz" in case:
        assert grid.shape == tuple(case["meta/grid_size_xyz"][::-1])
    return grid


def points_of(case: Arrays) -> PointCloudBatch:
    points = torch.from_numpy(case["input/points"])
    return PointCloudBatch(points[:, :3], points[:, 3:], torch.tensor([0, len(points)]), ("intensity",))


def boxes_of(rows: np.ndarray) -> Boxes3D:
    """(B, M, 8) boxes with the 1-based class last, zero rows as padding."""
    items = []
    for item in torch.from_numpy(np.ascontiguousarray(rows)):
        item = item[item[:, 7] > 0]
        items.append(Boxes3D.make(item[:, :3], item[:, 3:6], item[:, 6], label=item[:, 7].long() - 1))
    return Boxes3D.collate(items)


def compare(case: Arrays, name: str, value: Tensor | np.ndarray, *, atol: float = 1e-3, rtol: float = 1e-3) -> int:
    """Compare with everything that is stored of the array `name`; return how many things were."""
    array = value.detach().numpy() if isinstance(value, Tensor) else value
    compared = 0
    if f"{name}/shape" in case:
        assert array.shape == tuple(case[f"{name}/shape"]), name
    if name in case:
        np.testing.assert_allclose(array, case[name], atol=atol, rtol=rtol, err_msg=name)
        compared += 1
    if f"{name}/full_f16" in case:
        rounded = case[f"{name}/full_f16"].astype(np.float32)
        np.testing.assert_allclose(array, rounded, atol=atol, rtol=2e-3, err_msg=name)
        compared += 1
    if f"{name}/sample_idx" in case:
        sample = array.reshape(-1)[case[f"{name}/sample_idx"]]
        np.testing.assert_allclose(sample, case[f"{name}/sample_val"], atol=atol, rtol=rtol, err_msg=name)
        compared += 1
    exact = array.astype(np.float64)
    sizes, squares = np.abs(exact).sum(), np.square(exact).sum()
    for key, total, scale in (("sum", exact.sum(), sizes), ("abs_sum", sizes, sizes), ("sq_sum", squares, squares)):
        if f"{name}/{key}" in case:
            assert abs(total - case[f"{name}/{key}"]) <= rtol * scale + 1e-9, (name, key)
            compared += 1
    return compared
