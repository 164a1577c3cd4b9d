"""CenterPoint written down once more, plainly, in dense torch convolutions; imports nothing of the package.

State dicts have OpenPCDet's keys (commit 8cacccec, cfgs/nuscenes_models/cbgs_voxel0075_res3d_centerpoint.yaml).
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]
BRANCHES = {"center": 2, "center_z": 1, "dim": 3, "rot": 2, "vel": 2}
CODE_WEIGHTS = np.array([1, 1, 1, 1, 1, 1, 0.2, 0.2, 1, 1])


class Sparse:
    """A dense grid (1, C, z, y, x) and which of its cells are occupied (1, 1, z, y, x)."""

    def __init__(self, values: Tensor, mask: Tensor) -> None:
        self.values, self.mask = values * mask, mask

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return sorted [batch, z, y, x] and features."""
        index = self.mask[:, 0].nonzero()
        batch, z, y, x = index.unbind(1)
        return index.numpy().astype(np.int16), self.values[batch, :, z, y, x].numpy()


def mean_voxels(points: np.ndarray, low: np.ndarray, size: np.ndarray, cells_xyz: np.ndarray) -> Sparse:
    """Average the points of each voxel, one by one; z gets one more level."""
    total: dict[tuple[int, ...], list[np.ndarray]] = {}
    for point in points:
        index = np.floor((point[:3] - low) / size).astype(int)
        if (index >= 0).all() and (index < cells_xyz).all():
            total.setdefault(tuple(index[::-1]), []).append(point)
    depth, height, width = cells_xyz[2] + 1, cells_xyz[1], cells_xyz[0]
    values, mask = torch.zeros(1, points.shape[1], depth, height, width), torch.zeros(1, 1, depth, height, width)
    for (z, y, x), inside in total.items():
        values[0, :, z, y, x] = torch.from_numpy(np.mean(inside, 0))
        mask[0, 0, z, y, x] = 1
    return Sparse(values, mask)


class Unsettled(dict[str, Tensor]):
    """A state whose running statistics follow from the first pass, as training would have them follow."""

    def settle(self, name: str, x: Tensor) -> None:
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
        rows = rows[(rows != 0).any(1)]
        self[f"{name}.running_mean"] = rows.mean(0) + 0.1 * self[f"{name}.running_mean"]
        self[f"{name}.running_var"] = (rows.var(0) + 1e-3) * self[f"{name}.running_var"]


def norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    if isinstance(state, Unsettled):
        state.settle(name, x)
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return (x - mean.view(shape)) / torch.sqrt(var.view(shape) + eps) * weight.view(shape) + bias.view(shape)


def conv(state: State, name: str, x: Sparse, stride=(1, 1, 1), padding=(1, 1, 1), *, submanifold: bool) -> Sparse:
    weight = state[f"{name}.weight"].permute(0, 4, 1, 2, 3)
    values = F.conv3d(x.values, weight, state.get(f"{name}.bias"), stride, padding)
    reached = F.conv3d(x.mask, torch.ones(1, 1, *weight.shape[2:]), None, stride, padding)
    return Sparse(values, x.mask if submanifold else (reached > 0).float())


def block(state: State, name: str, x: Sparse, stride=(1, 1, 1), padding=(1, 1, 1), *, submanifold: bool) -> Sparse:
    out = conv(state, f"{name}.0", x, stride, padding, submanifold=submanifold)
    return Sparse(F.relu(norm(state, f"{name}.1", out.values, 1e-3)), out.mask)


def residual(state: State, name: str, x: Sparse) -> Sparse:
    first = conv(state, f"{name}.conv1", x, submanifold=True)
    first = Sparse(F.relu(norm(state, f"{name}.bn1", first.values, 1e-3)), first.mask)
    second = conv(state, f"{name}.conv2", first, submanifold=True)
    return Sparse(F.relu(norm(state, f"{name}.bn2", second.values, 1e-3) + x.values), x.mask)


def backbone(state: State, voxels: Sparse) -> dict[str, Sparse]:
    stages = {}
    x = block(state, "backbone_3d.conv_input", voxels, submanifold=True)
    for number, padding in ((1, None), (2, (1, 1, 1)), (3, (1, 1, 1)), (4, (0, 1, 1))):
        name = f"backbone_3d.conv{number}"
        if padding is not None:
            x = block(state, f"{name}.0", x, (2, 2, 2), padding, submanifold=False)
        for part in (0, 1) if padding is None else (1, 2):
            x = residual(state, f"{name}.{part}", x)
        stages[f"x_conv{number}"] = x
    stages["encoded"] = block(state, "backbone_3d.conv_out", x, (2, 1, 1), (0, 0, 0), submanifold=False)
    return stages


def neck(state: State, x: Tensor) -> Tensor:
    outputs = []
    for number, stride in enumerate((1, 2)):
        prefix = f"backbone_2d.blocks.{number}"
        count = sum(key.startswith(prefix) and key.endswith(".running_mean") for key in state)
        for layer in range(count):
            weight = state[f"{prefix}.{1 + 3 * layer}.weight"]
            x = F.conv2d(x, weight, None, stride if layer == 0 else 1, 1)
            x = F.relu(norm(state, f"{prefix}.{2 + 3 * layer}", x, 1e-3))
        up = F.conv_transpose2d(x, state[f"backbone_2d.deblocks.{number}.0.weight"], None, stride)
        outputs.append(F.relu(norm(state, f"backbone_2d.deblocks.{number}.1", up, 1e-3)))
    return torch.cat(outputs, 1)


def heads(state: State, x: Tensor, num_heads: int) -> list[dict[str, Tensor]]:
    def conv2d(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], 1, 1)

    shared = F.relu(norm(state, "dense_head.shared_conv.1", conv2d("dense_head.shared_conv.0", x), 1e-5))
    results = []
    for number in range(num_heads):
        maps = {}
        for name in (*BRANCHES, "hm"):
            prefix = f"dense_head.heads_list.{number}.{name}"
            inner = F.relu(norm(state, f"{prefix}.0.1", conv2d(f"{prefix}.0.0", shared), 1e-5))
            maps[name] = conv2d(f"{prefix}.1", inner)
        results.append(maps)
    return results


def draw_state(
    num_inputs: int,
    classes_by_head: list[int],
    *,
    channels: tuple[int, ...] = (16, 16, 32, 64, 128, 128),
    levels: int = 2,
    bev_channels: tuple[int, int] = (128, 256),
    up_channels: tuple[int, int] = (256, 256),
    layers: tuple[int, int] = (5, 5),
    shared: int = 64,
    seed: int = 0,
) -> Unsettled:
    """Return random weights under OpenPCDet's keys, in its order; statistics still to be settled by a pass."""
    generator = torch.Generator().manual_seed(seed)
    state = Unsettled()
    state |= {"global_step": torch.zeros(1, dtype=torch.int64)}

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator) * scale

    def add_norm(name: str, width: int) -> None:
        state[f"{name}.weight"] = 1 + normal(width, scale=0.2)
        state[f"{name}.bias"] = normal(width, scale=0.2)
        state[f"{name}.running_mean"] = normal(width, scale=0.2)
        state[f"{name}.running_var"] = 0.5 + torch.rand(width, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def add_conv(name: str, *shape: int, fan_in: int, bias: bool) -> None:
        state[f"{name}.weight"] = normal(*shape, scale=math.sqrt(2 / fan_in))
        if bias:
            state[f"{name}.bias"] = normal(shape[0], scale=0.2)

    def add_sparse(name: str, inside: int, outside: int, kernel=(3, 3, 3), *, bias: bool) -> None:
        # A surface fills about a third of a kernel.
        fan_in = max(1, inside * math.prod(kernel) // 3)
        add_conv(name, outside, *kernel, inside, fan_in=fan_in, bias=bias)

    def add_residual(name: str, width: int) -> None:
        for number in (1, 2):
            add_sparse(f"{name}.conv{number}", width, width, bias=True)
            add_norm(f"{name}.bn{number}", width)

    stem, *stages, last = channels
    add_sparse("backbone_3d.conv_input.0", num_inputs, stem, bias=False)
    add_norm("backbone_3d.conv_input.1", stem)
    before = stem
    for number, width in enumerate(stages, 1):
        name = f"backbone_3d.conv{number}"
        if number > 1:
            add_sparse(f"{name}.0.0", before, width, bias=False)
            add_norm(f"{name}.0.1", width)
        for part in (0, 1) if number == 1 else (1, 2):
            add_residual(f"{name}.{part}", width)
        before = width
    add_sparse("backbone_3d.conv_out.0", before, last, (3, 1, 1), bias=False)
    add_norm("backbone_3d.conv_out.1", last)

    before = last * levels
    for number, (width, up, stride) in enumerate(zip(bev_channels, up_channels, (1, 2), strict=True)):
        for layer in range(layers[number] + 1):
            name = f"backbone_2d.blocks.{number}.{1 + 3 * layer}"
            inside = before if layer == 0 else width
            add_conv(name, width, inside, 3, 3, fan_in=9 * inside, bias=False)
            add_norm(f"backbone_2d.blocks.{number}.{2 + 3 * layer}", width)
        add_conv(f"backbone_2d.deblocks.{number}.0", width, up, stride, stride, fan_in=width, bias=False)
        add_norm(f"backbone_2d.deblocks.{number}.1", up)
        before = width
    add_conv("dense_head.shared_conv.0", shared, sum(up_channels), 3, 3, fan_in=9 * sum(up_channels), bias=True)
    add_norm("dense_head.shared_conv.1", shared)
    for number, num_classes in enumerate(classes_by_head):
        for branch, width in (BRANCHES | {"hm": num_classes}).items():
            name = f"dense_head.heads_list.{number}.{branch}"
            add_conv(f"{name}.0.0", shared, shared, 3, 3, fan_in=9 * shared, bias=True)
            add_norm(f"{name}.0.1", shared)
            add_conv(f"{name}.1", width, shared, 3, 3, fan_in=36 * shared, bias=True)
    return state
