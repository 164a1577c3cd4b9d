"""Writes a case of CenterPoint in the form of OpenPCDet's reference results, from the plain implementation here."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .reference_centerpoint import BRANCHES, Sparse, State, backbone, draw_state, heads, mean_voxels, neck
from .reference_centers import decode_head, losses_of_head, targets_of_head

# cfgs/nuscenes_models/cbgs_voxel0075_res3d_centerpoint.yaml on a small part of the range, neither centered nor square.
LOW, SIZE, CELLS = np.array([2.4, -6.0, -5.0]), np.array([0.075, 0.075, 0.2]), np.array([64, 48, 40])
HEADS = [[1], [2, 3], [4, 5], [6], [7, 8], [9, 10]]
CODE_WEIGHTS = np.array([1, 1, 1, 1, 1, 1, 0.2, 0.2, 1, 1])
LOC_WEIGHT = 0.25
CENTER_RANGE = np.array([-61.2, -61.2, -10.0, 61.2, 61.2, 10.0])
SAMPLES = 300


def draw_points(seed: int = 0) -> np.ndarray:
    """Points of a sloping floor and a wall, none of them near a voxel's face, with intensity and time lag."""
    generator = np.random.default_rng(seed)
    u = generator.uniform(0, 1, (900, 2)) * CELLS[:2]
    floor = np.column_stack([u, 8 + 0.1 * u[:, 0] + generator.uniform(0, 1, 900)])
    wall = np.column_stack([20 + generator.uniform(0, 1.5, 500), *generator.uniform(0, 1, (2, 500)) * [[48], [40]]])
    places = np.concatenate([floor, wall])
    places = places[(np.abs(places - np.round(places)) > 0.01).all(1)]
    rest = np.column_stack([generator.integers(0, 256, len(places)), generator.integers(0, 10, len(places)) * 0.05])
    return np.column_stack([LOW + places * SIZE, rest]).astype(np.float32)


def draw_boxes(seed: int = 0) -> np.ndarray:
    """Rows x, y, z, length, width, height, yaw, vx, vy, class; of every class, a velocity unknown, a row of padding."""
    generator = np.random.default_rng(seed)
    num = 14
    boxes = np.zeros((num + 1, 10))
    boxes[:num, :3] = LOW + generator.uniform(0.05, 0.9, (num, 3)) * CELLS * SIZE
    boxes[:num, 3:6] = np.exp(generator.normal(0, 0.6, (num, 3)))
    boxes[:num, 6] = generator.uniform(-4, 4, num)
    boxes[:num, 7:9] = generator.normal(0, 3, (num, 2))
    boxes[:num, 9] = [*range(1, 11), 1, 3, 3, 10]
    boxes[2, 7:9] = np.nan
    return boxes[None].astype(np.float32)


def sampled(name: str, array: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return an array as samples and sums."""
    index = generator.choice(array.size, min(SAMPLES, array.size), replace=False)
    exact = array.astype(np.float64)
    return {
        f"{name}/shape": np.array(array.shape),
        f"{name}/sample_idx": index,
        f"{name}/sample_val": array.reshape(-1)[index].astype(np.float32),
        f"{name}/sum": exact.sum(),
        f"{name}/abs_sum": np.abs(exact).sum(),
        f"{name}/sq_sum": np.square(exact).sum(),
    }


def stage_arrays(stages: dict[str, Sparse], generator: np.random.Generator) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for number, (name, stage) in enumerate(stages.items()):
        indices, features = stage.rows()
        arrays[f"{name}/spatial_shape"] = np.array(stage.mask.shape[2:])
        arrays |= sampled(f"{name}/features", features, generator)
        if number % 2:
            rows = np.sort(generator.choice(len(indices), min(50, len(indices)), replace=False))
            sums = indices.sum(0, dtype=np.int64)
            arrays |= {f"{name}/row_sample": rows, f"{name}/row_indices": indices[rows], f"{name}/index_sum": sums}
            arrays[f"{name}/num_voxels"] = np.array(len(indices))
        else:
            arrays |= {f"{name}/indices": indices, f"{name}/features/full_f16": features.astype(np.float16)}
    return arrays


def target_arrays(maps: list[dict[str, np.ndarray]], boxes: np.ndarray) -> dict[str, np.ndarray]:
    """Targets of one sweep by head, and the losses of its maps."""
    arrays: dict[str, np.ndarray] = {"targets/gt_boxes10": boxes}
    names, values = [], []
    cell, shape = SIZE[:2] * 8, (int(CELLS[1]) // 8, int(CELLS[0]) // 8)
    for number, (classes, own) in enumerate(zip(HEADS, maps, strict=True)):
        target = targets_of_head(boxes[0].astype(np.float64), classes, LOW[:2], cell, shape)
        index = np.argwhere(target["heatmap"] > 0)
        prefix = f"targets/head{number}"
        arrays[f"{prefix}/heatmap_nonzero_idx"] = index.astype(np.int16)
        arrays[f"{prefix}/heatmap_nonzero_val"] = target["heatmap"][tuple(index.T)].astype(np.float32)
        for name in ("inds", "masks", "boxes"):
            arrays[f"{prefix}/{name}"] = target[name][:20]
        codes = np.concatenate([own[branch] for branch in BRANCHES], 1)
        focal, box = losses_of_head(own["hm"], codes, [target], CODE_WEIGHTS)
        names += [f"hm_loss_head_{number}", f"loc_loss_head_{number}"]
        values += [focal, LOC_WEIGHT * box]
    arrays["targets/loss_names"] = np.array([*names, "rpn_loss"])
    arrays["targets/loss_values"] = np.array([*values, sum(values)])
    return arrays


def gradient_arrays(state: State, voxels: Sparse, targets: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Gradient of the whole loss for every parameter: entries, l2 norm and sum."""
    learned = {key: value.clone().requires_grad_() for key, value in state.items() if key.endswith(("weight", "bias"))}
    *_, outputs = run(dict(state) | learned, voxels)
    total = torch.zeros(())
    for number, maps in enumerate(outputs):
        stored = {name: targets[f"targets/head{number}/{name}"] for name in ("inds", "masks", "boxes")}
        index = torch.from_numpy(targets[f"targets/head{number}/heatmap_nonzero_idx"]).long()
        wanted = torch.zeros_like(maps["hm"][0])
        wanted[tuple(index.T)] = torch.from_numpy(targets[f"targets/head{number}/heatmap_nonzero_val"])
        p = maps["hm"][0].sigmoid().clamp(1e-4, 1 - 1e-4)
        at_center, elsewhere = (1 - p) ** 2 * p.log(), (1 - wanted) ** 4 * p**2 * (1 - p).log()
        total = total - torch.where(wanted == 1, at_center, elsewhere).sum() / max(int((wanted == 1).sum()), 1)
        slots = np.flatnonzero(stored["masks"])
        codes = torch.cat([maps[branch] for branch in BRANCHES], 1)[0].flatten(1).T[stored["inds"][slots]]
        goal = torch.from_numpy(stored["boxes"][slots]).float()
        error = torch.where(goal.isnan(), 0.0, (codes - goal.nan_to_num()).abs()) * torch.from_numpy(CODE_WEIGHTS)
        total = total + LOC_WEIGHT * error.sum() / max(len(slots), 1)
    total.backward()
    generator, arrays = np.random.default_rng(seed), {}
    for key, value in learned.items():
        assert value.grad is not None
        grad = value.grad.flatten().double().numpy()
        index = generator.choice(len(grad), min(64, len(grad)), replace=False)
        arrays |= {f"{key}/idx": index, f"{key}/val": grad[index].astype(np.float32)}
        arrays |= {f"{key}/l2": np.linalg.norm(grad), f"{key}/sum": grad.sum()}
    return arrays


def decoded_arrays(maps: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    parts = []
    for classes, own in zip(HEADS, maps, strict=True):
        codes = np.concatenate([own[branch] for branch in BRANCHES], 1)[0]
        parts.append(decode_head(own["hm"][0], codes, classes, LOW[:2], SIZE[:2] * 8, center_range=CENTER_RANGE))
    boxes, scores, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    best = np.argsort(-scores, kind="stable")[:200]
    named = {"boxes": boxes[best].astype(np.float32), "scores": scores[best].astype(np.float32), "labels": labels[best]}
    return {f"decoded/top200_{name}": value for name, value in named.items()}


def run(state: State, voxels: Sparse) -> tuple[dict[str, Sparse], Tensor, Tensor, list[dict[str, Tensor]]]:
    """Return sparse stages, map, the neck's map and the outputs of each head."""
    stages = backbone(state, voxels)
    bev = stages["encoded"].values.flatten(1, 2)
    features = neck(state, bev)
    return stages, bev, features, heads(state, features, len(HEADS))


def write_case(folder: Path, *, whole: bool = True, seed: int = 0) -> Path:
    """Write a case.

    Args:
        folder: to be made.
        whole: head maps whole, else samples of them.
        seed: of weights, points and boxes.
    """
    generator = np.random.default_rng(seed)
    points = draw_points(seed)
    voxels = mean_voxels(points.astype(np.float64), LOW, SIZE, CELLS)
    unsettled = draw_state(5, [len(classes) for classes in HEADS], seed=seed)
    with torch.no_grad():
        run(unsettled, voxels)
        state = dict(unsettled)
        stages, bev, features, outputs = run(state, voxels)
    maps = [{name: value.numpy() for name, value in head.items()} for head in outputs]

    high = LOW + SIZE * CELLS
    case = {
        "meta/point_cloud_range": np.concatenate([LOW, high]).astype(np.float32),
        "meta/voxel_size": SIZE.astype(np.float32),
        "meta/grid_size_xyz": CELLS,
        "input/points": points,
        "input/voxel_coords_zyx": voxels.rows()[0][:, 1:],
        **sampled("voxel_features", voxels.rows()[1], generator),
        **stage_arrays(stages, generator),
        **sampled("bev/spatial_features", bev.numpy(), generator),
        **sampled("bev/spatial_features_2d", features.numpy(), generator),
        **decoded_arrays(maps),
    }
    for number, head in enumerate(maps):
        for name, value in head.items():
            key = f"head{number}/{name}"
            case |= {key: value} if whole else sampled(key, value, generator)
    folder.mkdir(parents=True)
    np.savez(folder / "crop_case.npz", **case)
    targets = target_arrays(maps, draw_boxes(seed))
    np.savez(folder / "targets_loss.npz", **targets)
    np.savez(folder / "param_grads.npz", **gradient_arrays(state, voxels, targets, seed))
    np.savez(folder / "state_dict.npz", **{key: value.numpy() for key, value in state.items()})
    listed = {key: [list(value.shape), str(value.dtype).removeprefix("torch.")] for key, value in state.items()}
    (folder / "state_dict_keys.json").write_text(json.dumps(listed))
    return folder
