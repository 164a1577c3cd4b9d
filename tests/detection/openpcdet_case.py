"""Reading and comparing what OpenPCDet gave: whole arrays, float16 copies, samples or sums, whatever is there."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilidar.detection.anchors import AnchorClass
from equilidar.detection.openpcdet_keys import our_key
from equilidar.structures import BackboneFeatures, Boxes3D, GridSpec, PointCloudBatch, SparseVoxels

Arrays = Mapping[str, np.ndarray]

# Stages of the sparse backbones, theirs to ours.
STAGES = {"x_conv1": "conv1", "x_conv2": "conv2", "x_conv3": "conv3", "x_conv4": "conv4", "encoded": "out"}

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
    points = torch.from_numpy(case["input/points"]).float()
    channels = ("intensity", "time", *(f"column{number}" for number in range(5, points.shape[1])))[
        : points.shape[1] - 3
    ]
    return PointCloudBatch(points[:, :3], points[:, 3:], torch.tensor([0, len(points)]), channels)


def boxes_of(rows: np.ndarray) -> Boxes3D:
    """(B, M, 8) boxes with the 1-based class last, zero rows as padding."""
    items = []
    for item in torch.from_numpy(np.ascontiguousarray(rows)):
        item = item[item[:, 7] > 0]
        items.append(Boxes3D.make(item[:, :3], item[:, 3:6], item[:, 6], label=item[:, 7].long() - 1))
    return Boxes3D.collate(items)


def deviation(case: Arrays, name: str, value: Tensor) -> float | None:
    """Return the largest difference from the float32 numbers stored of the array `name`; None if there are none."""
    array = value.detach().numpy()
    if name in case:
        return float(np.abs(array - case[name]).max(initial=0))
    if f"{name}/sample_idx" in case:
        return float(np.abs(array.reshape(-1)[case[f"{name}/sample_idx"]] - case[f"{name}/sample_val"]).max(initial=0))
    return None


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


def assert_indices(case: Arrays, name: str, voxels: SparseVoxels) -> int:
    """Compare with whichever form of the indices is stored; return how many were."""
    coords = voxels.coords.numpy()
    compared = 0
    if f"{name}/indices" in case:
        np.testing.assert_array_equal(coords, case[f"{name}/indices"], err_msg=name)
        compared += 1
    if f"{name}/num_voxels" in case:
        assert len(coords) == case[f"{name}/num_voxels"], name
        compared += 1
    if f"{name}/index_sum" in case:
        np.testing.assert_array_equal(coords.sum(0, dtype=np.int64), case[f"{name}/index_sum"], err_msg=name)
        compared += 1
    if f"{name}/row_sample" in case:
        np.testing.assert_array_equal(coords[case[f"{name}/row_sample"]], case[f"{name}/row_indices"], err_msg=name)
        compared += 1
    return compared


def assert_stages(case: Arrays, features: BackboneFeatures) -> None:
    compared = 0
    for theirs, ours in STAGES.items():
        voxels = features.stages[ours]
        compared += assert_indices(case, theirs, voxels)
        if f"{theirs}/spatial_shape" in case:
            assert voxels.shape == tuple(case[f"{theirs}/spatial_shape"]), theirs
        compared += compare(case, f"{theirs}/features", voxels.features)
    compared += compare(case, "bev/spatial_features", features.bev_map().features)
    stored = [key for key in case if key.split("/")[0] in STAGES or key.startswith("bev/spatial_features/")]
    assert compared or not stored, f"none of {stored} was understood"


def state_of(path: Path) -> dict[str, Tensor]:
    """Return the weights in a folder; skips where there are none."""
    return {key: torch.from_numpy(value) for key, value in load(path / "state_dict.npz").items()}


def assert_parameter_gradients(stored: Arrays, model: nn.Module) -> None:
    """Allowance of the files: 2e-2 relative l2, for a float32 network that rounds differently flips a few ReLUs."""
    parameters = dict(model.named_parameters())
    compared = set()
    for key in sorted({name.rsplit("/", 1)[0] for name in stored if name.endswith("/l2")}):
        name = our_key(key)
        compared.add(name)
        grad = parameters[name].grad.flatten().double().numpy()
        sample, value = grad[stored[f"{key}/idx"]], stored[f"{key}/val"].astype(np.float64)
        assert np.linalg.norm(sample - value) <= 2e-2 * np.linalg.norm(value) + 1e-9, key
        assert np.linalg.norm(grad) == pytest.approx(float(stored[f"{key}/l2"]), rel=2e-2), key
        assert abs(grad.sum() - stored[f"{key}/sum"]) <= 2e-2 * np.abs(grad).sum(), key
    assert compared == set(parameters)
