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
from tests.detection.openpcdet_case import (
    Arrays,
    assert_indices,
    assert_stages,
    compare,
    grid_of,
    load,
    points_of,
    state_of,
)


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


def backbone_of(path: Path, case: Arrays, engine: str = "reference") -> VoxelBackBone8x:
    backbone = VoxelBackBone8x(grid_of(case), case["input/points"].shape[1], engine=engine).eval()
    load_openpcdet_state(backbone, state_of(path.parent), source=str(path.parent))
    return backbone


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
        assert_stages(case, features)
        with capsys.disabled():
            print(f"\n{path.parent.name}/{path.stem}: stages and map as OpenPCDet's", end="")


@pytest.mark.skipif(import_error() is not None, reason=f"spconv: {import_error()}")
def test_oracle_openpcdet_spconv_engine(oracles):
    path = cases(oracles)[0]
    case = load(path)
    with torch.no_grad():
        features = backbone_of(path, case, engine="spconv").encode(points_of(case))
    assert_stages(case, features)


def test_oracle_openpcdet_keys_are_ours(oracles):
    """Names, shapes and dtypes below backbone_3d are exactly those that we write."""
    path = cases(oracles)[0]
    case = load(path)
    ours = to_openpcdet_state(VoxelBackBone8x(grid_of(case), case["input/points"].shape[1]))
    state = state_of(path.parent)
    theirs = {name: value for name, value in state.items() if name.startswith("backbone_3d.")}
    assert {n: (v.shape, v.dtype) for n, v in ours.items()} == {n: (v.shape, v.dtype) for n, v in theirs.items()}
    for folder in {case_path.parent for case_path in cases(oracles)}:
        keys = folder / "state_dict_keys.json"
        if keys.is_file():
            listed = json.loads(keys.read_text())
            listed = {n: tuple(shape) for n, (shape, _) in listed.items() if n.startswith("backbone_3d.")}
            assert listed == {name: tuple(value.shape) for name, value in ours.items()}
