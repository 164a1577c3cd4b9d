"""SECOND gives OpenPCDet's numbers, from points to parameter gradients."""

import json
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.detection.anchors import make_anchors
from equilidar.detection.decode import decode_predictions
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.neck import BEVNeck
from equilidar.detection.openpcdet_keys import load_openpcdet_state, our_key
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.second import SECOND, build_second
from equilidar.detection.targets import AnchorTargets, assign_targets
from equilidar.structures import BackboneFeatures, BEVMap

from .openpcdet_case import (
    ANCHORS,
    assert_parameter_gradients,
    boxes_of,
    compare,
    grid_of,
    load,
    points_of,
    state_of,
)

CLASSES = ("Car", "Pedestrian", "Cyclist")
TERMS = {"rpn_loss_cls": "classification", "rpn_loss_loc": "box", "rpn_loss_dir": "direction"}


@dataclass
class Run:
    """One stored case and what our network makes of its points."""

    arrays: dict[str, np.ndarray]
    model: SECOND
    features: BackboneFeatures
    bev: BEVMap
    neck: BEVMap
    predictions: AnchorPredictions


def build(folder: Path, arrays: dict[str, np.ndarray]) -> SECOND:
    model = build_second(VoxelBackBone8x(grid_of(arrays), 4), CLASSES, neck=BEVNeck, anchors=ANCHORS)
    load_openpcdet_state(model, state_of(folder))
    return model.eval()


@cache
def run_case(path: Path) -> Run:
    arrays = load(path)
    model = build(path.parent, arrays)
    with torch.no_grad():
        features = model.backbone.encode(points_of(arrays))
        bev = features.bev_map()
        neck = model.neck(bev)
        return Run(arrays, model, features, bev, neck, model.head(neck))


@pytest.fixture(params=["crop_case", "full_range_case"])
def case(request, second_case) -> Run:
    path = second_case / f"{request.param}.npz"
    load(path)  # skips where there is none
    return run_case(path)


def as_map(values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(B, H * W * P, C) in flat anchor order -> OpenPCDet's (B, H, W, P * C)."""
    return values.reshape(len(values), *shape, -1)


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
    shape, outputs = case.model.neck.out_shape, case.predictions
    compared = [
        compare(case.arrays, "bev/spatial_features", case.bev.features),
        compare(case.arrays, "bev/spatial_features_2d", case.neck.features),
        compare(case.arrays, "head/cls_preds", as_map(outputs.class_logits, shape)),
        compare(case.arrays, "head/box_preds", as_map(outputs.box_deltas, shape)),
        compare(case.arrays, "head/dir_cls_preds", as_map(outputs.direction_logits, shape)),
    ]
    assert sum(compared) > 0, f"nothing to compare with; {compared}"


def test_openpcdet_oracle_decoded_boxes(case) -> None:
    decoded = decode_predictions(case.predictions)
    compared = compare(case.arrays, "decoded/boxes", decoded.boxes[0], atol=5e-3)
    top = {key.removeprefix("decoded/top200_"): value for key, value in case.arrays.items() if "/top200_" in key}
    if "anchor_index" in top:
        index = torch.from_numpy(top["anchor_index"]).long()
        np.testing.assert_allclose(decoded.scores[0, index], top["scores"], atol=1e-3)
        np.testing.assert_array_equal(decoded.classes[0, index] + 1, top["labels"])
        np.testing.assert_allclose(decoded.boxes[0, index], top["boxes"], atol=2e-3, rtol=1e-3)
        np.testing.assert_allclose(decoded.scores[0].topk(len(index)).values, top["scores"], atol=1e-3)
    assert compared or top


@dataclass
class LossCase:
    arrays: dict[str, np.ndarray]
    name: str
    predictions: AnchorPredictions  # of batch2: the crop's maps and their mirror image


@pytest.fixture(params=["batch2", "single_box", "all_padding"])
def loss_case(request, second_case) -> LossCase:
    arrays = load(second_case / "targets_loss.npz")
    if f"{request.param}/gt_boxes" not in arrays:
        pytest.skip(f"{second_case.name} has no {request.param}")
    crop = load(second_case / "crop_case.npz")
    grid = grid_of(crop)
    shape = (grid.shape[1] // 8, grid.shape[2] // 8)
    if "head/cls_preds" in crop:
        maps = [torch.from_numpy(crop[f"head/{name}"]) for name in ("cls_preds", "box_preds", "dir_cls_preds")]
    else:
        own = run_case(second_case / "crop_case.npz").predictions
        maps = [as_map(values, shape) for values in (own.class_logits, own.box_deltas, own.direction_logits)]
    batch = [torch.cat([one, one.flip(2)]) if request.param == "batch2" else one for one in maps]
    outputs = [one.reshape(len(one), -1, size).requires_grad_() for one, size in zip(batch, (3, 7, 2), strict=True)]
    return LossCase(arrays, request.param, AnchorPredictions(*outputs, make_anchors(ANCHORS, grid, shape)))


def targets_of(case: LossCase) -> AnchorTargets:
    return assign_targets(case.predictions.anchors, boxes_of(case.arrays[f"{case.name}/gt_boxes"]))


def test_openpcdet_oracle_targets(loss_case) -> None:
    stored = {key.removeprefix(f"{loss_case.name}/"): value for key, value in loss_case.arrays.items()}
    targets = targets_of(loss_case)
    np.testing.assert_array_equal(targets.labels.numpy(), stored["labels"])
    positive = targets.labels > 0
    np.testing.assert_array_equal(positive.nonzero().numpy(), stored["pos_index_b_anchor"])
    np.testing.assert_allclose(targets.boxes[positive].numpy(), stored["pos_reg_targets"], atol=1e-5)
    np.testing.assert_array_equal(targets.directions[positive].numpy(), stored["pos_dir_targets"])
    assert (targets.boxes[~positive] == 0).all() and (targets.directions[~positive] == 0).all()


def assert_losses(terms, names: np.ndarray, values: np.ndarray) -> None:
    for name, value in zip(names, values, strict=True):
        term = TERMS.get(str(name))
        ours = terms.terms[term] * terms.weights[term] if term else terms.total()
        assert ours.item() == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_openpcdet_oracle_losses_and_their_gradients(loss_case) -> None:
    terms = AnchorLoss()(loss_case.predictions, targets_of(loss_case))
    assert_losses(
        terms, loss_case.arrays[f"{loss_case.name}/loss_names"], loss_case.arrays[f"{loss_case.name}/loss_values"]
    )
    terms.total().backward()
    outputs = loss_case.predictions
    for name, output in (
        ("cls_preds", outputs.class_logits),
        ("box_preds", outputs.box_deltas),
        ("dir_cls_preds", outputs.direction_logits),
    ):
        shape = tuple(loss_case.arrays[f"{loss_case.name}/grad_{name}/shape"])
        grad = output.grad.reshape(shape)
        assert compare(loss_case.arrays, f"{loss_case.name}/grad_{name}", grad, atol=1e-6), name


def test_openpcdet_oracle_parameter_gradients(second_case) -> None:
    stored = load(second_case / "param_grads.npz")
    crop = load(second_case / "crop_case.npz")
    model = build(second_case, crop)
    boxes = boxes_of(load(second_case / "targets_loss.npz")["batch2/gt_boxes"][:1])
    terms = model.loss(model(points_of(crop)), boxes)
    assert_losses(terms, stored["loss_names"], stored["loss_values"])
    terms.total().backward()
    assert_parameter_gradients(stored, model)


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
    with pytest.raises(ValueError, match=r"backbone_2d.blocks.0.1.weight: shape \(128, 256, 3, 3\)"):
        load_openpcdet_state(narrow, state)
    assert all(torch.equal(before[name], value) for name, value in narrow.state_dict().items())
    model = build(second_case, load(second_case / "crop_case.npz"))
    with pytest.raises(ValueError, match="not in the checkpoint"):
        load_openpcdet_state(model, {key: value for key, value in state.items() if "deblocks.1" not in key})
    with pytest.raises(ValueError, match=r"roi_head\.x"):
        load_openpcdet_state(model, state | {"roi_head.x": torch.zeros(1)})
