"""OpenPCDet's own results for SECOND: voxels, every stage, BEV map, state keys. Cases are found by folder and file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.checkpoint import load_openpcdet_state, to_openpcdet_state
from equilidar.ops.rulebook import cell_keys
from equilidar.ops.sparse_engine_spconv import import_error
from equilidar.ops.voxelize import voxelize_hard, voxelize_mean
from equilidar.structures import BackboneFeatures, SparseVoxels
from tests.detection.openpcdet_case import Arrays, compare, grid_of, load, points_of

# Theirs to ours.
STAGES = {"x_conv1": "conv1", "x_conv2": "conv2", "x_conv3": "conv3", "x_conv4": "conv4", "encoded": "out"}


def cases(oracles: Path) -> list[Path]:
    """Return the files of SECOND that hold points and a range, whatever their names."""
    found = []
    for path in sorted((oracles / "openpcdet").glob("second*/*.npz")):
        with np.load(path, allow_pickle=False) as file:
            if {"input/points", "meta/point_cloud_range"} <= set(file.files):
                found.append(path)
    if not found:
        pytest.skip(f"no SECOND cases in {oracles / 'openpcdet'}")
    return found


def state_of(path: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in load(path.parent / "state_dict.npz").items()}


def backbone_of(path: Path, case: Arrays, engine: str = "reference") -> VoxelBackBone8x:
    backbone = VoxelBackBone8x(grid_of(case), case["input/points"].shape[1], engine=engine).eval()
    load_openpcdet_state(backbone, state_of(path), source=str(path.parent))
    return backbone


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


def assert_case(case: Arrays, features: BackboneFeatures) -> None:
    compared = 0
    for theirs, ours in STAGES.items():
        voxels = features.stages[ours]
        compared += assert_indices(case, theirs, voxels)
        if f"{theirs}/spatial_shape" in case:
            assert voxels.shape == tuple(case[f"{theirs}/spatial_shape"]), theirs
        compared += compare(case, f"{theirs}/features", voxels.features)
    compared += compare(case, "bev/spatial_features", features.bev_map().features)
    assert compared, "the case stores nothing of the backbone"


def test_oracle_openpcdet_voxels(oracles):
    """The capped and the dynamic voxelizer agree on these points, which were chosen so that no cap is reached."""
    for path in cases(oracles):
        case = load(path)
        grid, points = grid_of(case), points_of(case)
        hard = voxelize_hard(points, grid, int(case.get("meta/max_points_per_voxel", 5)), 40_000)
        assert_indices(case, "x_conv1", voxelize_mean(points, grid))
        for voxels in (voxelize_mean(points, grid), hard.mean()):
            if "input/voxel_coords_zyx" in case:
                np.testing.assert_array_equal(voxels.coords[:, 1:].numpy(), case["input/voxel_coords_zyx"])
            compare(case, "voxel_features", voxels.features, atol=1e-5, rtol=1e-5)
        if "input/voxel_num_points" in case:
            order = cell_keys(hard.coords, grid.shape).argsort()
            np.testing.assert_array_equal(hard.num_points[order].numpy(), case["input/voxel_num_points"])


def test_oracle_openpcdet_stages_and_map(oracles, capsys):
    for path in cases(oracles):
        case = load(path)
        with torch.no_grad():
            features = backbone_of(path, case).encode(points_of(case))
        assert_case(case, features)
        with capsys.disabled():
            print(f"\n{path.parent.name}/{path.stem}: stages and map as OpenPCDet's", end="")


@pytest.mark.skipif(import_error() is not None, reason=f"spconv: {import_error()}")
def test_oracle_openpcdet_spconv_engine(oracles):
    path = cases(oracles)[0]
    case = load(path)
    with torch.no_grad():
        features = backbone_of(path, case, engine="spconv").encode(points_of(case))
    assert_case(case, features)


def test_oracle_openpcdet_keys_are_ours(oracles):
    """Names, shapes and dtypes below backbone_3d are exactly those that we write."""
    path = cases(oracles)[0]
    case = load(path)
    ours = to_openpcdet_state(VoxelBackBone8x(grid_of(case), case["input/points"].shape[1]))
    state = state_of(path)
    theirs = {name: value for name, value in state.items() if name.startswith("backbone_3d.")}
    assert {n: (v.shape, v.dtype) for n, v in ours.items()} == {n: (v.shape, v.dtype) for n, v in theirs.items()}
    for folder in {case_path.parent for case_path in cases(oracles)}:
        keys = folder / "state_dict_keys.json"
        if keys.is_file():
            listed = json.loads(keys.read_text())
            listed = {n: tuple(shape) for n, (shape, _) in listed.items() if n.startswith("backbone_3d.")}
            assert listed == {name: tuple(value.shape) for name, value in ours.items()}
