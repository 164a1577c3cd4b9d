"""Compares CenterPoint with what is stored of it, part by part."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.detection.center_decode import CenterSelection, decode_centers
from equilidar.detection.center_losses import CenterLoss
from equilidar.detection.center_predictions import CenterPredictions
from equilidar.detection.center_targets import CenterAssignment, CenterTargets
from equilidar.ops.voxelize import voxelize_mean
from equilidar.structures import BackboneFeatures, BEVMap

from .centerpoint_case import (
    BRANCHES,
    Folder,
    HeadTargets,
    boxes_of,
    head_maps,
    head_targets,
    layout_of,
    read_folder,
    stored_losses,
    stored_predictions,
)
from .openpcdet_case import STAGES, Arrays, assert_stages, compare, deviation, grid_of, points_of

LOC_WEIGHT = CenterLoss().box


@cache
def run(path: Path, name: str) -> tuple[BackboneFeatures, BEVMap, CenterPredictions]:
    folder = read_folder(path)
    case = folder.cases[name]
    model = folder.model(case)
    with torch.no_grad():
        features = model.backbone.encode(points_of(case))
        neck = model.neck(features.bev_map())
        return features, neck, model.head(neck)


def codes_of_branch(predictions: CenterPredictions, number: int, branch: str) -> torch.Tensor:
    layout = predictions.layout
    if branch == "hm":
        rows = [k for k, task in enumerate(layout.task_of_class) if task == number]
        return predictions.heatmap[:, rows]
    ends = dict(zip(BRANCHES, np.cumsum([2, 1, 3, 2, 2]), strict=True))
    width = {"center": 2, "center_z": 1, "dim": 3, "rot": 2, "vel": 2}[branch]
    return predictions.codes[:, number, ends[branch] - width : ends[branch]]


def predictions_of(folder: Folder, case: Arrays) -> CenterPredictions:
    """Return the stored maps, where they are whole, else what our network gives; skips where there is neither."""
    stored = stored_predictions(case, layout_of(case))
    if stored is not None:
        return stored
    if not folder.has_weights:
        pytest.skip(f"{folder.path.name} has neither weights nor whole head maps")
    name = next(name for name, arrays in folder.cases.items() if arrays is case)
    return run(folder.path, name)[2]


def check_network(folder: Folder) -> dict[str, float]:
    """Compare stages, maps and head outputs of all cases; return the largest deviation of each."""
    deviations: dict[str, float] = {}
    for name, case in folder.cases.items():
        features, neck, predictions = run(folder.path, name)
        voxels = voxelize_mean(points_of(case), grid_of(case))
        if "input/voxel_coords_zyx" in case:
            np.testing.assert_array_equal(voxels.coords[:, 1:].numpy(), case["input/voxel_coords_zyx"])
        compare(case, "voxel_features", voxels.features, atol=1e-4, rtol=1e-5)
        assert_stages(case, features)
        values = {f"{theirs}/features": features.stages[ours].features for theirs, ours in STAGES.items()}
        values |= {"bev/spatial_features": features.bev_map().features, "bev/spatial_features_2d": neck.features}
        compared = compare(case, "bev/spatial_features_2d", neck.features)
        for number, stored in head_maps(case).items():
            for branch, key in stored.items():
                value = codes_of_branch(predictions, number, branch)
                values[key] = value
                compared += compare(case, key, value)
        own = [key for key in case if key.startswith("head") or key.startswith("bev/spatial_features_2d")]
        assert compared or not own, f"{name}: none of {own} was understood"
        for key, value in values.items():
            found = deviation(case, key, value)
            if found is not None:
                deviations[key] = max(found, deviations.get(key, 0.0))
    return deviations


def check_decoded(folder: Folder) -> int:
    """Compare the best boxes: each stored one is among ours, with its score and class; return how many were."""
    compared = 0
    for case in folder.cases.values():
        stored = {key.removeprefix("decoded/"): value for key, value in case.items() if key.startswith("decoded/")}
        stored = {key.removeprefix("top200_").removeprefix("pred_"): value for key, value in stored.items()}
        if not {"boxes", "scores", "labels"} <= stored.keys():
            continue
        decoded = decode_centers(predictions_of(folder, case))
        # A box whose score rounding brings to the other side of the threshold is none too many.
        usable = CenterSelection(score_threshold=0.1 - 1e-3)._usable(decoded)
        # Without suppression, what follows it may still have cut each head off.
        cut = usable & (usable.cumsum(2) <= CenterSelection().max_boxes)
        best = np.sort(stored["scores"])[::-1]
        kept = next((rows for rows in (usable, cut) if _same_scores(decoded.scores[rows].numpy(), best)), None)
        assert kept is not None, f"scores differ from {best}"
        scores, labels = decoded.scores[kept].numpy(), decoded.classes[kept].numpy() + 1
        boxes = torch.cat([decoded.boxes, decoded.velocities], -1)[kept].numpy()
        for box, score, label in zip(stored["boxes"], stored["scores"], stored["labels"], strict=True):
            same = np.flatnonzero((labels == label) & (np.abs(scores - score) < 1e-3))
            difference = np.abs(boxes[same] - box)
            difference[:, 6] = np.abs(np.angle(np.exp(1j * difference[:, 6])))
            allowed = 2e-3 + 1e-3 * np.abs(box)
            assert (difference <= allowed).all(1).any(), f"no box of ours is {box}, class {label}, score {score}"
        compared += len(best)
    return compared


def _same_scores(ours: np.ndarray, best: np.ndarray) -> bool:
    """Tell whether `best` are the highest of ours: 200, or all that there are."""
    whole = len(best) >= 200 or int((ours > 0.1 + 1e-3).sum()) <= len(best)
    highest = np.sort(ours)[::-1][: len(best)]
    return whole and len(highest) == len(best) and bool(np.allclose(highest, best, atol=1e-3, rtol=0))


def check_targets(folder: Folder) -> int:
    """Compare heat maps and the first slots of each head; return how many things were."""
    compared = 0
    for case, arrays in folder.targets:
        layout = layout_of(case)
        targets = CenterAssignment()(layout, boxes_of(arrays))
        for number, stored in head_targets(arrays, len(layout.tasks)).items():
            classes = [k for k, task in enumerate(layout.task_of_class) if task == number]
            compared += _check_heatmap(targets.heatmap[:, classes].numpy(), stored)
            compared += _check_slots(targets, number, stored)
    return compared


def _check_heatmap(heatmap: np.ndarray, stored: HeadTargets) -> int:
    compared = 0
    if stored.index is not None:
        index = stored.index if stored.index.shape[1] == 4 else np.insert(stored.index, 0, 0, axis=1)
        order = np.lexsort(index.T[::-1])
        np.testing.assert_array_equal(np.argwhere(heatmap > 0), index[order])
        if stored.value is not None:
            np.testing.assert_allclose(heatmap[tuple(index[order].T)], stored.value[order], atol=1e-5)
        compared += 1
    if stored.heatmap is not None:
        np.testing.assert_allclose(heatmap, stored.heatmap.reshape(heatmap.shape), atol=1e-5)
        compared += 1
    return compared


def _check_slots(targets: CenterTargets, number: int, stored: HeadTargets) -> int:
    """Compare the first slots of each sweep; those that are not used are zero."""
    compared, batch = 0, len(targets.heatmap)
    ones = torch.ones_like(targets.cell)
    for ours, theirs in ((targets.cell, stored.inds), (ones, stored.mask), (targets.codes, stored.boxes)):
        if theirs is None:
            continue
        # A sweep alone may be stored without an axis for it.
        by_item = theirs.reshape(batch, -1, *theirs.shape[theirs.ndim - ours.ndim + 1 :])
        for item, expected in enumerate(by_item):
            values = ours[(targets.item == item) & (targets.task == number)].numpy()[: len(expected)]
            padded = np.zeros(expected.shape)
            padded[: len(values)] = values
            np.testing.assert_allclose(padded, expected, atol=1e-4, rtol=1e-5)
        compared += 1
    return compared


def check_losses(folder: Folder) -> dict[str, float]:
    """Compare losses; return the largest relative deviation of each."""
    deviations: dict[str, float] = {}
    for case, arrays in folder.targets:
        stored = stored_losses(arrays)
        if not stored:
            continue
        predictions = predictions_of(folder, case)
        targets = CenterAssignment()(predictions.layout, boxes_of(arrays))
        heatmap, box = CenterLoss().by_task(predictions, targets)
        ours = {f"hm_loss_head_{number}": value for number, value in enumerate(heatmap.tolist())}
        ours |= {f"loc_loss_head_{number}": LOC_WEIGHT * value for number, value in enumerate(box.tolist())}
        ours["rpn_loss"] = sum(ours.values())
        for name, value in stored.items():
            assert name in ours, f"unknown loss {name}; known are {', '.join(ours)}"
            assert ours[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
            deviations[name] = abs(ours[name] - value) / max(abs(value), 1e-9)
    return deviations
