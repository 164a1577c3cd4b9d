"""An anchor-based detector against OpenPCDet's files of one folder: maps, boxes, targets, losses, gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.detection.anchors import make_anchors
from equilidar.detection.decode import decode_predictions
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.openpcdet_keys import load_openpcdet_state
from equilidar.detection.predictions import AnchorPredictions
from equilidar.detection.second import SECOND
from equilidar.detection.targets import AnchorTargets, assign_targets
from equilidar.structures import BackboneFeatures, BEVMap, GridSpec

from .openpcdet_case import (
    ANCHORS,
    Arrays,
    assert_parameter_gradients,
    boxes_of,
    compare,
    grid_of,
    load,
    points_of,
    state_of,
)

CLASSES = ("Car", "Pedestrian", "Cyclist")
BATCHES = ("batch2", "single_box", "all_padding")
TERMS = {"rpn_loss_cls": "classification", "rpn_loss_loc": "box", "rpn_loss_dir": "direction"}

Build = Callable[[GridSpec, int], SECOND]
"""Makes an untrained detector for a grid and a number of numbers for each point, x, y, z included."""


@dataclass
class Run:
    """One stored case and what our network makes of its points."""

    arrays: dict[str, np.ndarray]
    model: SECOND
    features: BackboneFeatures
    bev: BEVMap
    neck: BEVMap
    predictions: AnchorPredictions


def run_files(folder: Path) -> list[Path]:
    """Return the files that hold points and a range, whatever their names."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            if {"input/points", "meta/point_cloud_range"} <= set(file.files):
                found.append(path)
    return found


def loaded(build: Build, folder: Path, arrays: Arrays) -> SECOND:
    """Return a detector for a case's points in eval mode, with the folder's weights."""
    model = build(grid_of(arrays), arrays["input/points"].shape[1])
    load_openpcdet_state(model, state_of(folder))
    return model.eval()


@cache
def run_case(build: Build, path: Path) -> Run:
    arrays = load(path)
    model = loaded(build, path.parent, arrays)
    with torch.no_grad():
        features = model.backbone.encode(points_of(arrays))
        bev = features.bev_map()
        neck = model.neck(bev)
        return Run(arrays, model, features, bev, neck, model.head(neck))


def as_map(values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(B, H * W * P, C) in flat anchor order -> OpenPCDet's (B, H, W, P * C)."""
    return values.reshape(len(values), *shape, -1)


def assert_maps(case: Run) -> None:
    shape, outputs = case.model.neck.out_shape, case.predictions
    compared = [
        compare(case.arrays, "bev/spatial_features", case.bev.features),
        compare(case.arrays, "bev/spatial_features_2d", case.neck.features),
        compare(case.arrays, "head/cls_preds", as_map(outputs.class_logits, shape)),
        compare(case.arrays, "head/box_preds", as_map(outputs.box_deltas, shape)),
        compare(case.arrays, "head/dir_cls_preds", as_map(outputs.direction_logits, shape)),
    ]
    stored = [key for key in case.arrays if key.startswith(("bev/", "head/"))]
    assert sum(compared) > 0 or not stored, f"none of {stored} was understood"
    if not stored:
        pytest.skip("the case stores neither maps nor head outputs")


def assert_decoded(case: Run) -> None:
    decoded = decode_predictions(case.predictions)
    compared = compare(case.arrays, "decoded/boxes", decoded.boxes[0], atol=5e-3)
    top = {key.removeprefix("decoded/top200_"): value for key, value in case.arrays.items() if "/top200_" in key}
    if "anchor_index" in top:
        index = torch.from_numpy(top["anchor_index"]).long()
        np.testing.assert_allclose(decoded.scores[0, index], top["scores"], atol=1e-3)
        np.testing.assert_array_equal(decoded.classes[0, index] + 1, top["labels"])
        np.testing.assert_allclose(decoded.boxes[0, index], top["boxes"], atol=2e-3, rtol=1e-3)
        np.testing.assert_allclose(decoded.scores[0].topk(len(index)).values, top["scores"], atol=1e-3)
    assert compared or top, "the case stores nothing decoded"


@dataclass
class LossCase:
    """Stored boxes and the predictions that they are compared with: those of a crop, `batch2` its mirror image, too."""

    arrays: dict[str, np.ndarray]
    name: str
    predictions: AnchorPredictions


def loss_case(build: Build, folder: Path, name: str) -> LossCase:
    """Read a batch of targets_loss.npz; skips where there is none."""
    arrays = load(folder / "targets_loss.npz")
    if f"{name}/gt_boxes" not in arrays:
        pytest.skip(f"{folder.name} has no {name}")
    run = crop_of(build, folder, arrays[f"{name}/labels"].shape[1] if f"{name}/labels" in arrays else None)
    shape, outputs = run.model.neck.out_shape, run.predictions
    stored = [f"head/{part}" for part in ("cls_preds", "box_preds", "dir_cls_preds")]
    if all(key in run.arrays for key in stored):
        maps = [torch.from_numpy(run.arrays[key]) for key in stored]
    else:
        own = (outputs.class_logits, outputs.box_deltas, outputs.direction_logits)
        maps = [as_map(values, shape) for values in own]
    batch = [torch.cat([one, one.flip(2)]) if name == "batch2" else one for one in maps]
    leaves = [one.reshape(len(one), -1, size).requires_grad_() for one, size in zip(batch, (3, 7, 2), strict=True)]
    anchors = make_anchors(ANCHORS, grid_of(run.arrays), shape)
    return LossCase(arrays, name, AnchorPredictions(*leaves, anchors))


def crop_of(build: Build, folder: Path, num_anchors: int | None = None) -> Run:
    """Return the run that targets refer to: the crop, or the one with as many anchors as there are labels."""
    paths = run_files(folder)
    runs = (run_case(build, path) for path in sorted(paths, key=lambda path: path.name != "crop_case.npz"))
    found = next((run for run in runs if num_anchors in (None, len(run.predictions.anchors.boxes))), None)
    if found is None:
        pytest.skip(f"{folder.name} has no points of a map with {num_anchors} anchors")
    return found


def targets_of(case: LossCase) -> AnchorTargets:
    return assign_targets(case.predictions.anchors, boxes_of(case.arrays[f"{case.name}/gt_boxes"]))


def assert_targets(case: LossCase) -> None:
    stored = {key.removeprefix(f"{case.name}/"): value for key, value in case.arrays.items()}
    if "anchors/all_HWA7_flat" in case.arrays:
        np.testing.assert_allclose(case.predictions.anchors.boxes, case.arrays["anchors/all_HWA7_flat"], atol=1e-5)
    targets = targets_of(case)
    positive = targets.labels > 0
    ours = {
        "labels": targets.labels,
        "pos_index_b_anchor": positive.nonzero(),
        "pos_reg_targets": targets.boxes[positive],
        "pos_dir_targets": targets.directions[positive],
    }
    compared = ours.keys() & stored.keys()
    if not compared:
        pytest.skip(f"{case.name} has no targets")
    for key in compared:
        np.testing.assert_allclose(ours[key].numpy(), stored[key], atol=1e-5, err_msg=key)
    assert (targets.boxes[~positive] == 0).all() and (targets.directions[~positive] == 0).all()


def assert_loss_values(terms, names: np.ndarray, values: np.ndarray) -> None:
    for name, value in zip(names, values, strict=True):
        term = TERMS.get(str(name))
        assert term or name == "rpn_loss", f"unknown loss {name}; known are {', '.join([*TERMS, 'rpn_loss'])}"
        ours = terms.terms[term] * terms.weights[term] if term else terms.total()
        assert ours.item() == pytest.approx(value, rel=1e-4, abs=1e-6), name


def assert_losses_and_gradients(case: LossCase) -> None:
    terms = AnchorLoss()(case.predictions, targets_of(case))
    if f"{case.name}/loss_values" not in case.arrays:
        pytest.skip(f"{case.name} has no losses")
    assert_loss_values(terms, case.arrays[f"{case.name}/loss_names"], case.arrays[f"{case.name}/loss_values"])
    terms.total().backward()
    outputs = case.predictions
    for name, output in (
        ("cls_preds", outputs.class_logits),
        ("box_preds", outputs.box_deltas),
        ("dir_cls_preds", outputs.direction_logits),
    ):
        key = f"{case.name}/grad_{name}"
        whole = case.arrays.get(f"{key}/shape", case.arrays[key].shape if key in case.arrays else None)
        if whole is None:
            continue
        assert output.grad is not None
        assert compare(case.arrays, key, output.grad.reshape(tuple(whole)), atol=1e-6), name


def assert_gradients_of_parameters(build: Build, folder: Path) -> None:
    stored = load(folder / "param_grads.npz")
    crop = crop_of(build, folder).arrays
    model = loaded(build, folder, crop)
    targets = load(folder / "targets_loss.npz")
    if "batch2/gt_boxes" not in targets:
        pytest.skip(f"{folder.name} does not say which boxes its gradients are of")
    terms = model.loss(model(points_of(crop)), boxes_of(targets["batch2/gt_boxes"][:1]))
    if "loss_values" in stored:
        assert_loss_values(terms, stored["loss_names"], stored["loss_values"])
    terms.total().backward()
    assert_parameter_gradients(stored, model)
