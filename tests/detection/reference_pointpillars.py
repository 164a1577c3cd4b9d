"""PointPillars for KITTI in plain NumPy and PyTorch, after the paper and OpenPCDet's description; imports no equilidar.

Everything in float64 and, where the network is not concerned, one box, anchor or point after the other.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .reference_anchors import all_anchors, decode, targets_and_losses

Arrays = dict[str, np.ndarray]

VOXEL = np.array([0.16, 0.16, 4.0])
RANGE = np.array([3.2, -4.48, -3.0, 13.44, 5.76, 1.0])  # offset, and 64 x 64 pillars
MAX_POINTS = 32
LAYERS, WIDTHS, UP = (3, 5, 5), (64, 128, 256), (1, 2, 4)
EPS = 1e-3


def random_state(rng: np.random.Generator) -> Arrays:
    """Return weights under OpenPCDet's names; batch normalisation is far from the identity."""
    state: Arrays = {"global_step": np.array([7])}

    def weight(name: str, *shape: int, fan_in: int) -> None:
        state[name] = (rng.standard_normal(shape) * math.sqrt(2 / fan_in)).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        for part, low, high in (("weight", 0.7, 1.3), ("bias", -0.3, 0.3), ("running_mean", -0.3, 0.3)):
            state[f"{name}.{part}"] = rng.uniform(low, high, channels).astype(np.float32)
        state[f"{name}.running_var"] = rng.uniform(0.7, 1.5, channels).astype(np.float32)
        state[f"{name}.num_batches_tracked"] = np.array(11)

    weight("vfe.pfn_layers.0.linear.weight", 64, 10, fan_in=60)
    norm("vfe.pfn_layers.0.norm", 64)
    inside = 64
    for i, (layers, width, up) in enumerate(zip(LAYERS, WIDTHS, UP, strict=True)):
        for j in range(layers + 1):
            weight(f"backbone_2d.blocks.{i}.{1 + 3 * j}.weight", width, inside, 3, 3, fan_in=9 * inside)
            norm(f"backbone_2d.blocks.{i}.{2 + 3 * j}", width)
            inside = width
        weight(f"backbone_2d.deblocks.{i}.0.weight", width, 128, up, up, fan_in=width)
        norm(f"backbone_2d.deblocks.{i}.1", 128)
    for name, channels in (("conv_cls", 18), ("conv_box", 42), ("conv_dir_cls", 12)):
        weight(f"dense_head.{name}.weight", channels, 384, 1, 1, fan_in=3840)
        state[f"dense_head.{name}.bias"] = rng.uniform(-0.5, 0.0, channels).astype(np.float32)
    return state


def points_on_cars(rng: np.random.Generator, boxes: np.ndarray) -> np.ndarray:
    """Return ground, boxes' sides, some points out of range and a pillar with more points than it keeps."""
    spread = RANGE[3:] - RANGE[:3] + 1
    ground = RANGE[:3] - 0.5 + rng.random((2500, 3)) * spread
    ground[:, 2] = -1.7 + 0.05 * rng.standard_normal(2500)
    ground[:50, 2] = 3.0
    sides = [ground, np.array([5.3, 0.7, -1.2]) + 0.04 * rng.standard_normal((90, 3))]
    for x, y, z, length, width, height, yaw, _ in boxes:
        local = (rng.random((200, 3)) - 0.5) * (length, width, height)
        local[:100, 0], local[100:, 1] = length / 2, -width / 2
        cos, sin = math.cos(yaw), math.sin(yaw)
        turned = np.stack(
            [local[:, 0] * cos - local[:, 1] * sin, local[:, 0] * sin + local[:, 1] * cos, local[:, 2]], 1
        )
        sides.append(turned + np.array([x, y, z]))
    xyz = rng.permutation(np.concatenate(sides))
    points = np.concatenate([xyz, rng.random((len(xyz), 1))], 1).astype(np.float32)
    # Away from the faces of cells, where rounding would decide.
    place = (points[:, :3].astype(np.float64) - RANGE[:3]) / VOXEL
    return points[np.abs(place - np.round(place)).min(1) > 2e-3]


def collect(points: np.ndarray) -> dict[tuple[int, int, int], np.ndarray]:
    """Return the first points of each pillar (z, y, x), sorted by pillar."""
    cells: dict[tuple[int, int, int], list[np.ndarray]] = {}
    shape = np.round((RANGE[3:] - RANGE[:3]) / VOXEL).astype(int)
    for point in points.astype(np.float64):
        cell = np.floor((point[:3] - RANGE[:3]) / VOXEL).astype(int)
        if (cell >= 0).all() and (cell < shape).all():
            cells.setdefault((int(cell[2]), int(cell[1]), int(cell[0])), []).append(point)
    return {cell: np.stack(cells[cell][:MAX_POINTS]) for cell in sorted(cells)}


class Network:
    """The network in eval mode, weights as float64 leaves."""

    def __init__(self, state: Arrays) -> None:
        self.state = {name: torch.from_numpy(value) for name, value in state.items()}
        self.leaves = {
            name: value.double().requires_grad_()
            for name, value in self.state.items()
            if value.is_floating_point() and "running" not in name
        }

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance = (self.state[f"{name}.running_{part}"].double() for part in ("mean", "var"))
        weight, bias = self.leaves[f"{name}.weight"], self.leaves[f"{name}.bias"]
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return ((x - mean.view(shape)) / torch.sqrt(variance.view(shape) + EPS)) * weight.view(shape) + bias.view(shape)

    def pillar_features(self, pillars: dict[tuple[int, int, int], np.ndarray]) -> Tensor:
        rows = []
        for (_, y, x), points in pillars.items():
            center = RANGE[:3] + np.array([x + 0.5, y + 0.5, 0.5]) * VOXEL
            slots = np.zeros((MAX_POINTS, 10))
            slots[: len(points)] = np.concatenate(
                [points, points[:, :3] - points[:, :3].mean(0), points[:, :3] - center], 1
            )
            rows.append(slots)
        x = torch.from_numpy(np.stack(rows)) @ self.leaves["vfe.pfn_layers.0.linear.weight"].T
        return self.norm(x.flatten(0, 1), "vfe.pfn_layers.0.norm").relu().view_as(x).amax(1)

    def scatter(self, pillars: dict[tuple[int, int, int], np.ndarray], features: Tensor) -> Tensor:
        num_x, num_y, _ = np.round((RANGE[3:] - RANGE[:3]) / VOXEL).astype(int).tolist()
        flat = torch.tensor([z + y * num_x + x for z, y, x in pillars])
        return (
            torch.zeros(64, num_y * num_x, dtype=torch.float64).index_add(1, flat, features.T).view(1, 64, num_y, num_x)
        )

    def dense(self, x: Tensor) -> Tensor:
        outputs = []
        for i, (layers, up) in enumerate(zip(LAYERS, UP, strict=True)):
            for j in range(layers + 1):
                weight = self.leaves[f"backbone_2d.blocks.{i}.{1 + 3 * j}.weight"]
                x = F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, stride=2 if j == 0 else 1)
                x = self.norm(x, f"backbone_2d.blocks.{i}.{2 + 3 * j}").relu()
            enlarged = F.conv_transpose2d(x, self.leaves[f"backbone_2d.deblocks.{i}.0.weight"], stride=up)
            outputs.append(self.norm(enlarged, f"backbone_2d.deblocks.{i}.1").relu())
        return torch.cat(outputs, 1)

    def head(self, x: Tensor) -> dict[str, Tensor]:
        """Return (1, H, W, channels) maps."""
        maps = {}
        for name, ours in (("cls_preds", "conv_cls"), ("box_preds", "conv_box"), ("dir_cls_preds", "conv_dir_cls")):
            weight, bias = self.leaves[f"dense_head.{ours}.weight"], self.leaves[f"dense_head.{ours}.bias"]
            maps[name] = F.conv2d(x, weight, bias).permute(0, 2, 3, 1)
        return maps


def store(arrays: Arrays, name: str, values: Tensor, rng: np.random.Generator) -> None:
    """Add an array as shape, samples and sums."""
    array = values.detach().numpy()
    flat = array.reshape(-1)
    picked = rng.choice(len(flat), min(2000, len(flat)), replace=False).astype(np.int32)
    arrays |= {f"{name}/shape": np.array(array.shape, np.int32), f"{name}/sample_idx": picked}
    arrays |= {f"{name}/sample_val": flat[picked].astype(np.float32), f"{name}/sum": flat.sum()}
    arrays |= {f"{name}/abs_sum": np.abs(flat).sum(), f"{name}/sq_sum": np.square(flat).sum()}


def write_case(folder: Path, seed: int = 0) -> None:
    """Write weights, a crop, targets, losses and gradients in the form of OpenPCDet's files."""
    rng = np.random.default_rng(seed)
    boxes = np.zeros((2, 6, 8), np.float32)
    boxes[0] = [
        (8.0, 2.0, -0.9, 4.1, 1.7, 1.5, 0.2, 1),
        (11.0, -2.5, -1.0, 3.7, 1.6, 1.6, -2.0, 1),
        (6.0, -1.0, -0.8, 0.8, 0.7, 1.7, 0.5, 2),
        (9.0, 4.5, -0.9, 0.6, 0.5, 1.6, 3.0, 2),
        (5.0, 4.0, -0.9, 1.8, 0.6, 1.7, -3.47, 3),
        (12.0, 1.0, -0.9, 4.2, 1.8, 1.5, 1.6, 1),
    ]
    boxes[1, :2] = boxes[0, [1, 4]]
    state = random_state(rng)
    points = points_on_cars(rng, boxes[0].astype(np.float64))
    pillars, network = collect(points), Network(state)
    features = network.pillar_features(pillars)
    bev = network.scatter(pillars, features)
    neck = network.dense(bev)
    maps = network.head(neck)
    anchors = all_anchors(*neck.shape[2:], RANGE)
    decoded, scores, labels = decode(maps, anchors)
    best = np.argsort(-scores, kind="stable")[:200]

    shape = np.round((RANGE[3:] - RANGE[:3]) / VOXEL).astype(np.int32)
    case: Arrays = {"meta/point_cloud_range": RANGE.astype(np.float32), "meta/voxel_size": VOXEL}
    case |= {"meta/grid_size_xyz": shape, "input/points": points}
    case |= {"input/voxel_coords_zyx": np.array(list(pillars), np.int16)}
    case |= {"input/voxel_num_points": np.array([len(rows) for rows in pillars.values()], np.int8)}
    case |= {"pillar_features/full_f16": features.detach().numpy().astype(np.float16)}
    for name, values in (
        ("pillar_features", features),
        ("bev/spatial_features", bev),
        ("bev/spatial_features_2d", neck),
    ):
        store(case, name, values, rng)
    case |= {f"head/{name}": values.detach().numpy().astype(np.float32) for name, values in maps.items()}
    case |= {"decoded/top200_anchor_index": best.astype(np.int32), "decoded/top200_labels": labels[best]}
    case |= {"decoded/top200_scores": scores[best].astype(np.float32), "decoded/top200_boxes": decoded[best]}
    store(case, "decoded/boxes", torch.from_numpy(decoded), rng)

    targets: Arrays = {"anchors/all_HWA7_flat": anchors.astype(np.float32)}
    for name, batch in (
        ("batch2", boxes),
        ("single_box", boxes[:1, :1]),
        ("all_padding", np.zeros((1, 1, 8), np.float32)),
    ):
        stacked = [torch.cat([one, one.flip(2)]) if name == "batch2" else one for one in maps.values()]
        leaves = {key: one.detach().requires_grad_() for key, one in zip(maps, stacked, strict=True)}
        assigned, losses = targets_and_losses(leaves, anchors, batch.astype(np.float64))
        losses["rpn_loss"].backward()
        targets |= {f"{name}/gt_boxes": batch} | {f"{name}/{key}": value for key, value in assigned.items()}
        targets |= {f"{name}/loss_names": np.array(list(losses))}
        targets |= {f"{name}/loss_values": np.array([value.item() for value in losses.values()])}
        for key, leaf in leaves.items():
            store(targets, f"{name}/grad_{key}", torch.zeros_like(leaf) if leaf.grad is None else leaf.grad, rng)

    _, losses = targets_and_losses(maps, anchors, boxes[:1].astype(np.float64))
    losses["rpn_loss"].backward()
    gradients: Arrays = {"loss_names": np.array(list(losses))}
    gradients |= {"loss_values": np.array([value.item() for value in losses.values()])}
    for name, leaf in network.leaves.items():
        flat = leaf.grad.flatten().numpy()
        picked = rng.choice(len(flat), min(64, len(flat)), replace=False).astype(np.int32)
        gradients |= {f"{name}/idx": picked, f"{name}/val": flat[picked].astype(np.float32)}
        gradients |= {f"{name}/l2": np.linalg.norm(flat), f"{name}/sum": flat.sum()}

    folder.mkdir(parents=True)
    for name, arrays in (
        ("state_dict", state),
        ("crop_case", case),
        ("targets_loss", targets),
        ("param_grads", gradients),
    ):
        np.savez(folder / f"{name}.npz", **arrays)
