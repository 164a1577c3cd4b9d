"""SECOND gives OpenPCDet's numbers, from points to parameter gradients."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.detection.neck import BEVNeck
from equilidar.detection.openpcdet_keys import load_openpcdet_state, our_key
from equilidar.detection.second import SECOND, build_second
from equilidar.structures import GridSpec

from .openpcdet_anchor_case import (
    BATCHES,
    CLASSES,
    LossCase,
    Run,
    assert_decoded,
    assert_gradients_of_parameters,
    assert_losses_and_gradients,
    assert_maps,
    assert_targets,
    loaded,
    run_case,
)
from .openpcdet_anchor_case import loss_case as read_loss_case
from .openpcdet_case import ANCHORS, Arrays, grid_of, load


def untrained(grid: GridSpec, in_channels: int) -> SECOND:
    return build_second(VoxelBackBone8x(grid, in_channels), CLASSES, neck=BEVNeck, anchors=ANCHORS)


def build(folder: Path, arrays: Arrays) -> SECOND:
    return loaded(untrained, folder, arrays)


@pytest.fixture(params=["crop_case", "full_range_case"])
def case(request, second_case) -> Run:
    path = second_case / f"{request.param}.npz"
    load(path)  # skips where there is none
    return run_case(untrained, path)


def test_openpcdet_oracle_weights_load_key_by_key(second_case) -> None:
    arrays = load(second_case / "state_dict.npz")
    model = build_second(
        VoxelBackBone8x(grid_of(load(second_case / "crop_case.npz")), 4), CLASSES, neck=BEVNeck, anchors=ANCHORS
    )
    report = load_openpcdet_state(model, {key: torch.from_numpy(value) for key, value in arrays.items()})
    assert set(report.loaded) | set(report.skipped) == set(arrays) and report.skipped == ("global_step",)
    assert {our_key(key) for key in report.loaded} == set(model.state_dict())
    state = model.state_dict()
    for key in report.loaded:
        assert np.array_equal(state[our_key(key)].numpy(), arrays[key]), key
    listed = second_case / "state_dict_keys.json"
    if listed.is_file():
        assert set(json.loads(listed.read_text())) == set(arrays)


def test_openpcdet_oracle_map_neck_and_head(case) -> None:
    assert_maps(case)


def test_openpcdet_oracle_decoded_boxes(case) -> None:
    assert_decoded(case)


@pytest.fixture(params=BATCHES)
def loss_case(request, second_case) -> LossCase:
    return read_loss_case(untrained, second_case, request.param)


def test_openpcdet_oracle_targets(loss_case) -> None:
    assert_targets(loss_case)


def test_openpcdet_oracle_losses_and_their_gradients(loss_case) -> None:
    assert_losses_and_gradients(loss_case)


def test_openpcdet_oracle_parameter_gradients(second_case) -> None:
    assert_gradients_of_parameters(untrained, second_case)


def test_spconv_1_layout_loads_too(second_case) -> None:
    arrays = load(second_case / "state_dict.npz")
    crop = load(second_case / "crop_case.npz")
    state = {key: torch.from_numpy(value) for key, value in arrays.items()}
    old = {key: value.permute(1, 2, 3, 4, 0) if value.dim() == 5 else value for key, value in state.items()}
    model = build(second_case, crop)
    load_openpcdet_state(model, old)
    for name, value in build(second_case, crop).state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_weights_that_do_not_fit_are_refused(second_case) -> None:
    arrays = load(second_case / "state_dict.npz")
    state = {key: torch.from_numpy(value) for key, value in arrays.items()}
    grid = grid_of(load(second_case / "crop_case.npz"))
    narrow = build_second(VoxelBackBone8x(grid, 4), CLASSES, neck=partial(BEVNeck, channels=(64, 128)), anchors=ANCHORS)
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    with pytest.raises(ValueError, match=r"mis-shaped like backbone_2d\.blocks\.0\.1\.weight"):
        load_openpcdet_state(narrow, state)
    assert all(torch.equal(before[name], value) for name, value in narrow.state_dict().items())
    model = build(second_case, load(second_case / "crop_case.npz"))
    with pytest.raises(ValueError, match=r"missing like backbone_2d\.deblocks\.1"):
        load_openpcdet_state(model, {key: value for key, value in state.items() if "deblocks.1" not in key})
    with pytest.raises(ValueError, match=r"1 unexpected like roi_head\.x"):
        load_openpcdet_state(model, state | {"roi_head.x": torch.zeros(1)})
