"""PointPillars gives OpenPCDet's numbers: on its own files where they are, and on those of a plain implementation.

What is compared is SECOND's class on `PillarEncoder` (configs/detector/pointpillars.yaml).
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.backbones import PillarEncoder
from equilidar.detection.neck import BEVNeck
from equilidar.detection.openpcdet_keys import our_key
from equilidar.detection.second import SECOND, build_second
from equilidar.structures import GridSpec

from .openpcdet_anchor_case import (
    BATCHES,
    CLASSES,
    assert_decoded,
    assert_gradients_of_parameters,
    assert_losses_and_gradients,
    assert_maps,
    assert_targets,
    loaded,
    loss_case,
    run_case,
    run_files,
)
from .openpcdet_case import ANCHORS, assert_indices, compare, load, points_of
from .reference_pointpillars import write_case

ORACLES = Path(os.environ.get("EQUILIDAR_ORACLES", Path(__file__).resolve().parents[3] / "shared" / "oracles"))
FOLDERS = sorted(path for path in (ORACLES / "openpcdet").glob("pointpillar*") if path.is_dir())

# cfgs/kitti_models/pointpillar.yaml, BACKBONE_2D.
NECK = partial(
    BEVNeck,
    layers=(3, 5, 5),
    strides=(2, 2, 2),
    channels=(64, 128, 256),
    up_strides=(1, 2, 4),
    up_channels=(128, 128, 128),
)


def untrained(grid: GridSpec, in_channels: int) -> SECOND:
    return build_second(PillarEncoder(grid, in_channels), CLASSES, neck=NECK, anchors=ANCHORS)


@pytest.fixture(
    scope="module",
    params=["plain", *FOLDERS, *([] if ORACLES.is_dir() else [None])],
    ids=lambda param: param.name if isinstance(param, Path) else param or "no_folder",
)
def folder(request, tmp_path_factory) -> Path:
    if request.param == "plain":
        path = tmp_path_factory.mktemp("oracles") / "pointpillar_plain"
        write_case(path)
        return path
    if request.param is None:
        pytest.skip(f"no reference results at {ORACLES}: set EQUILIDAR_ORACLES")
    return request.param


def runs(folder: Path) -> list[Path]:
    found = run_files(folder)
    if not found:
        pytest.skip(f"{folder.name} has no points")
    return found


def test_openpcdet_oracle_names_are_ours(folder) -> None:
    """Every weight has its place, none is left without."""
    state = load(folder / "state_dict.npz")
    model = loaded(untrained, folder, load(runs(folder)[0]))
    ours = {our_key(key): value for key, value in state.items() if our_key(key) is not None}
    assert ours.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), ours[name], err_msg=name)


def test_openpcdet_oracle_pillars(folder) -> None:
    """Which points each pillar holds, and what the encoder makes of them, rows sorted by (z, y, x)."""
    for path in runs(folder):
        run = run_case(untrained, path)
        assert isinstance(run.model.backbone, PillarEncoder)
        pillars, encoded = run.model.backbone.pillars(points_of(run.arrays)), run.features.last
        if "input/voxel_coords_zyx" in run.arrays:
            np.testing.assert_array_equal(pillars.coords[:, 1:].numpy(), run.arrays["input/voxel_coords_zyx"])
        if "input/voxel_num_points" in run.arrays:
            np.testing.assert_array_equal(pillars.num_points.numpy(), run.arrays["input/voxel_num_points"])
        assert_indices(run.arrays, "pillar_features", encoded)
        compared = compare(run.arrays, "pillar_features", encoded.features)
        compared += compare(run.arrays, "pillar_features/features", encoded.features)
        assert compared or not any(key.startswith("pillar_features") for key in run.arrays)


def test_openpcdet_oracle_maps(folder) -> None:
    for path in runs(folder):
        assert_maps(run_case(untrained, path))


def test_openpcdet_oracle_decoded_boxes(folder) -> None:
    for path in runs(folder):
        run = run_case(untrained, path)
        if not any(key.startswith("decoded/") for key in run.arrays):
            pytest.skip(f"{folder.name} has no decoded boxes")
        assert_decoded(run)


@pytest.mark.parametrize("batch", BATCHES)
def test_openpcdet_oracle_targets(folder, batch) -> None:
    assert_targets(loss_case(untrained, folder, batch))


@pytest.mark.parametrize("batch", BATCHES)
def test_openpcdet_oracle_losses_and_their_gradients(folder, batch) -> None:
    assert_losses_and_gradients(loss_case(untrained, folder, batch))


def test_openpcdet_oracle_parameter_gradients(folder) -> None:
    assert_gradients_of_parameters(untrained, folder)


def test_a_wrong_network_is_noticed(tmp_path) -> None:
    """The files hold enough to tell a pillar's center or an unused slot that was treated in another way."""
    write_case(tmp_path / "case", seed=1)

    class Shifted(PillarEncoder):
        def pillars(self, points):
            voxels = super().pillars(points)
            voxels.num_points = torch.full_like(voxels.num_points, self.max_points)
            return voxels

    def wrong(grid: GridSpec, in_channels: int) -> SECOND:
        return build_second(Shifted(grid, in_channels), CLASSES, neck=NECK, anchors=ANCHORS)

    run = run_case(wrong, tmp_path / "case" / "crop_case.npz")
    with pytest.raises(AssertionError, match="pillar_features"):
        compare(run.arrays, "pillar_features", run.features.last.features)
    with pytest.raises(AssertionError, match=r"bev/spatial_features"):
        assert_maps(run)
