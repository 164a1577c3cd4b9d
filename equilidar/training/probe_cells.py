"""Bird's-eye-view cells of a frozen backbone, each with the class of the object that stands on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from equilidar.backbones.feature_info import Backbone
from equilidar.data.faults import Fault
from equilidar.data.loading import LoadedBatch, make_loader
from equilidar.data.protocols import LabelledDataset
from equilidar.data.sequences import sequences_of
from equilidar.nn.device import device_of
from equilidar.structures import BEVCells, Boxes3D, LabelledBatch

BACKGROUND = 0


@dataclass(frozen=True)
class ProbeCells:
    """Occupied cells of many sweeps.

    Attributes:
        features: (K, C) of the frozen backbone.
        labels: (K,) 0 where no labelled object stands on the cell's centre, else 1 + the index of its class.
        sweep: (K,) index of the sweep in the dataset.
        faults: sweeps that could not be read.
    """

    features: Float[Tensor, "K C"]
    labels: Int64[Tensor, " K"]
    sweep: Int64[Tensor, " K"]
    faults: tuple[Fault, ...] = ()

    def select(self, rows: Tensor) -> "ProbeCells":
        """Return some of the cells: a mask or rows."""
        return ProbeCells(self.features[rows], self.labels[rows], self.sweep[rows], self.faults)

    def of_sweeps(self, sweeps: Sequence[int]) -> "ProbeCells":
        """Return the cells of some sweeps."""
        return self.select(torch.isin(self.sweep, torch.tensor(list(sweeps), dtype=torch.int64)))

    def balanced(self, per_class: int, generator: torch.Generator) -> "ProbeCells":
        """Return at most `per_class` cells of each class, drawn without repetition."""
        order = torch.randperm(len(self.labels), generator=generator)
        rows = [order[self.labels[order] == label][:per_class] for label in self.labels.unique().tolist()]
        return self.select(torch.cat(rows) if rows else order)


@torch.no_grad()
def collect_cells(
    backbone: Backbone,
    dataset: LabelledDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
) -> ProbeCells:
    """Encode every sweep of a dataset and label its occupied cells.

    Frozen means eval mode without gradients: neither weights nor running statistics move.

    Args:
        backbone: an `nn.Module` besides; it is moved to `device`.
        dataset: sweeps with boxes.
        batch_size: sweeps at once.
        num_workers: processes that read.
        device: where to compute; "auto" takes the GPU where there is one.

    Raises:
        ValueError: no sweep could be read.
    """
    device = device_of(device)
    module = cast(nn.Module, backbone).to(device)
    was_training = module.training
    module.eval()
    loader = make_loader(
        dataset, "labelled", batch_size, seed=0, num_workers=num_workers, shuffle=False, drop_last=False
    )
    place = {key: index for index, key in enumerate(dataset.keys)}
    features, labels, sweeps, faults = [], [], [], []
    for loaded in cast("list[LoadedBatch[LabelledBatch]]", loader):
        faults += loaded.faults
        if loaded.batch is None:
            continue
        cells = backbone.encode(loaded.batch.points.to(device)).bev_cells()
        of_sweep = torch.tensor([place[key] for key in loaded.batch.keys])
        features.append(cells.features.float().cpu())
        labels.append(label_cells(cells, loaded.batch.boxes.to(device)).cpu())
        sweeps.append(of_sweep[cells.coords[:, 0].cpu()])
    module.train(was_training)
    if not features:
        raise ValueError(f"dataset: none of {len(dataset)} sweeps could be read: {faults[0].key}: {faults[0].reason}")
    return ProbeCells(torch.cat(features), torch.cat(labels), torch.cat(sweeps), tuple(faults))


def label_cells(cells: BEVCells, boxes: Boxes3D) -> Int64[Tensor, " K"]:
    """Return for each cell 1 + the label of the box whose footprint its centre lies in, 0 where there is none.

    Of several boxes the one with the nearest centre counts.
    """
    batch, y, x = cells.coords.unbind(1)
    low = torch.tensor(cells.grid.low, device=batch.device)[:2]
    size = torch.tensor(cells.grid.voxel_size, device=batch.device)[:2]
    stride = torch.tensor([cells.stride[1], cells.stride[0]], device=batch.device)
    center = low + (torch.stack([x, y], 1) + 0.5) * stride * size
    labels = torch.full_like(batch, BACKGROUND)
    for item, own in enumerate(boxes.split()):
        rows = (batch == item).nonzero()[:, 0]
        if not len(rows) or not len(own):
            continue
        delta = center[rows][None] - own.center[:, None, :2]  # (M, K, 2)
        cos, sin = own.yaw.cos()[:, None], own.yaw.sin()[:, None]
        along, across = delta[..., 0] * cos + delta[..., 1] * sin, delta[..., 1] * cos - delta[..., 0] * sin
        inside = (along.abs() <= own.size[:, :1] / 2) & (across.abs() <= own.size[:, 1:2] / 2)
        distance, nearest = torch.where(inside, delta.norm(dim=-1), torch.inf).min(0)
        labels[rows] = torch.where(distance.isfinite(), 1 + own.label[nearest], BACKGROUND)
    return labels


def split_by_sequence(keys: Sequence[str], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the sweeps to train a probe on and those to judge it by; no sequence is in both.

    Args:
        keys: "dataset/sequence/frame".
        fraction: of the sequences that judge, in (0, 1); at least one, and at least one is left.
        seed: of the draw.

    Raises:
        ValueError: the fraction is out of range, or all sweeps are of one sequence.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"held_out must lie between 0 and 1, got {fraction}")
    try:
        of_key = sequences_of(keys)
    except ValueError:
        raise ValueError(
            f"dataset: all {len(keys)} sweeps are of one sequence, and a probe is judged on sequences that it has not "
            "seen: give a dataset of more"
        ) from None
    names = sorted(set(of_key.values()))
    order = np.random.default_rng(seed).permutation(len(names))
    number = min(max(round(fraction * len(names)), 1), len(names) - 1)
    judging = {names[i] for i in order[:number]}
    return (
        [i for i, key in enumerate(keys) if of_key[key] not in judging],
        [i for i, key in enumerate(keys) if of_key[key] in judging],
    )
