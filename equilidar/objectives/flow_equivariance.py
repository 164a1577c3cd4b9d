"""Flow equivariance: features of the earlier sweep, carried along by scene flow, predict those of the later one."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.objectives.cells import as_columns, cells_of_points
from equilidar.objectives.heads import looked_at, projection_head
from equilidar.objectives.reduction import all_processes_sum, masked_mean
from equilidar.objectives.switches import one_of
from equilidar.ops.flow_pairing import warp_to_cells
from equilidar.ops.interpolate import find_cells
from equilidar.structures import BackboneFeatures, BEVCells, LossTerms, PairFeatures, SparseVoxels, WarpedSource
from equilidar.structures.host_sync import rows_where

Reduction = Literal["mean", "max"]


class FlowEquivariance(nn.Module):
    """L_flow of E-SSL3D (Hegde et al., ECCV 2024); its ancestor is FlowE (Xiong et al., ICCV 2021).

        L_flow = (1 / HW) * || z^_{t-1} - y^_t ||_2^2,   y^_t = q(m(f(p_t))),   z^_{t-1} = m'(warp(f'(p_{t-1})))

    on bird's-eye-view cells; f', m' are moving averages of encoder f and projector m and get no gradient, q is the
    predictor. A feature moves with the points of its cell: each source point takes the feature of the cell it is in to
    the cell where its flow leads. Both sweeps are encoded in their own frames, so that ego motion is part of the warp.
    Cells that no point reaches, or that are empty in the later sweep, do not count.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"a", "source"})

    def __init__(
        self,
        *,
        features: FeatureInfo,
        projector: Sequence[int] = (256, 128),
        predictor: Sequence[int] | None = (128, 128),
        form: str = "l2",
        normaliser: str = "HW",
        collisions: str = "mean",
        cells: str = "occupied",
        stop_gradient: bool = True,
        target_batchnorm: str = "ema",
        output_norm: bool = False,
        weight: float = 300.0,
    ) -> None:
        """Build projector, its moving average, and predictor.

        Args:
            features: what the backbone gives.
            projector: widths of m's layers.
            predictor: widths of q's layers; None leaves q out (an ablation that collapses).
            form: "l2" of the projections as they are; "cosine": scaled to unit length first (BYOL: 2 - 2 cos).
            normaliser: "HW": all cells of the map, as printed; "valid": the cells that count.
            collisions: "mean" | "max" of what several source cells carry into one cell.
            cells: "occupied": heads run on occupied cells; "dense": on all cells of the map.
            stop_gradient: False lets m itself project the source and passes gradients (an ablation that collapses).
            target_batchnorm: "ema": m' normalises by averaged running statistics; "batch": by the batch's own.
            output_norm: m ends with a BatchNorm without scale and shift. With target_batchnorm="batch" projections then
                have no mean that q could predict instead of the scene.
            weight: factor in the total: 300 belongs to "HW", about 30 to "valid".

        Raises:
            ValueError: an unknown switch.
        """
        super().__init__()
        if predictor is not None and list(predictor)[-1:] != list(projector)[-1:]:
            raise ValueError(
                f"flow_equivariance.predictor must end as wide as projector, got {predictor} after {projector}"
            )
        self.form = one_of("flow_equivariance.form", form, ("l2", "cosine"))
        self.normaliser = one_of("flow_equivariance.normaliser", normaliser, ("HW", "valid"))
        self.collisions: Reduction = one_of("flow_equivariance.collisions", collisions, ("mean", "max"))
        self.cells = one_of("flow_equivariance.cells", cells, ("occupied", "dense"))
        self.target_batchnorm = one_of("flow_equivariance.target_batchnorm", target_batchnorm, ("ema", "batch"))
        self.stop_gradient, self.weight = stop_gradient, weight
        self.projector = projection_head((features.bev_channels, *projector), output_norm=output_norm)
        self.predictor = nn.Identity() if predictor is None else projection_head((projector[-1], *predictor))
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False) if stop_gradient else None
        self.train()

    def train(self, mode: bool = True) -> "FlowEquivariance":
        """Set the mode; the target's BatchNorm stays in eval mode unless it is to use the batch's statistics."""
        super().train(mode)
        if self.target_projector is not None and self.target_batchnorm == "ema":
            self.target_projector.eval()
        return self

    def forward(self, pair: PairFeatures) -> LossTerms:
        """Return the term "regression".

        Raises:
            ValueError: the source, or the view that belongs to it, was not encoded.
        """
        source, encoded, online = _temporal_parts(pair)
        cells = self._map(online)
        warp = self._warp(self._map(encoded), source, cells)
        predicted = self.predictor(self.projector(cells.features))[warp.reached]
        projected = self._target(warp.features)
        distance = squared_distance(predicted, projected, self.form)
        area = distance.new_full((), float(cells.batch_size * cells.shape[1] * cells.shape[2]))
        term = masked_mean(distance, warp.weight, count=area if self.normaliser == "HW" else None)
        metrics = {
            "pairs": all_processes_sum(distance.new_full((), float(len(distance)))),
            "paired_points": masked_mean(warp.paired.float()),
            "reached_cells": masked_mean(_as_mask(warp.reached, len(cells.features))),
        }
        return LossTerms({"regression": term}, {"regression": self.weight}, metrics)

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the projector and its moving average."""
        return [] if self.target_projector is None else [(self.projector, self.target_projector)]

    def embeddings(self, pair: PairFeatures) -> dict[str, Float[Tensor, "N D"]]:
        """Return y^_t at the occupied cells, by running statistics."""
        online = _temporal_parts(pair)[2]
        with looked_at(self.projector, self.predictor):
            predicted = self.predictor(self.projector(online.bev_cells().features)).float()
        return {"predictions": predicted}

    def _map(self, encoded: BackboneFeatures) -> SparseVoxels:
        cells = encoded.bev_cells()
        return as_columns(cells if self.cells == "occupied" else _all_cells(cells))

    def _warp(self, source: SparseVoxels, points: WarpedSource, cells: SparseVoxels) -> "_Warp":
        """Carry source features into the cells of the later sweep."""
        item = points.view.points.batch_index
        start = find_cells(source, cells_of_points(source.grid, source.stride, points.view.points.xyz, item))
        end = find_cells(cells, cells_of_points(cells.grid, cells.stride, points.warped, item))
        paired = (start >= 0) & (end >= 0) & points.valid & (points.weight > 0)
        weight = torch.where(paired, points.weight, 0.0)
        num_cells = len(cells.features)
        with torch.no_grad() if self.stop_gradient else nullcontext():
            carried, total = warp_to_cells(source.features, start, end, num_cells, self.collisions, weight)
        # One more cell, for points that reach none.
        counted = total.new_zeros(num_cells + 1).index_add(
            0, torch.where(paired, end, num_cells), paired.to(total.dtype)
        )
        arrivals = counted[:num_cells]
        reached = rows_where(arrivals > 0, "number of cells reached")
        # A cell's confidence is the mean of those of its points, not their sum: cells count alike, near or far.
        return _Warp(carried[reached], reached, (total / arrivals)[reached], paired)

    def _target(self, carried: Float[Tensor, "K C"]) -> Float[Tensor, "K D"]:
        if self.target_projector is None:
            return self.projector(carried)
        with torch.no_grad():
            return self.target_projector(carried)


@dataclass(slots=True)
class _Warp:
    """Features carried by flow.

    Attributes:
        features: (K, C) at the cells reached.
        reached: (K,) rows of those cells.
        weight: (K,) 0..1, their confidence.
        paired: (N,) bool: source points that reached a cell.
    """

    features: Tensor
    reached: Int64[Tensor, " K"]
    weight: Tensor
    paired: Tensor


def squared_distance(
    predicted: Float[Tensor, "K D"], projected: Float[Tensor, "K D"], form: str
) -> Float[Tensor, " K"]:
    """Return || z^ - y^ ||_2^2 of each row, in float32; for "cosine" of rows scaled to unit length."""
    predicted, projected = predicted.float(), projected.float()
    if form == "cosine":
        predicted, projected = F.normalize(predicted, dim=1), F.normalize(projected, dim=1)
    return (predicted - projected).square().sum(1)


def _temporal_parts(pair: PairFeatures) -> tuple[WarpedSource, BackboneFeatures, BackboneFeatures]:
    """Return the source's points, its features, and those of the later sweep's view in whose frame it is warped."""
    online = pair.a if pair.views.temporal is None else pair.temporal
    if pair.views.source is None or pair.source is None or online is None:
        raise ValueError(
            "flow_equivariance reads the source sweep: build the views with a flow, encode views.source by the target "
            "network and, with augment.temporal=separate, views.temporal by the online one"
        )
    return pair.views.source, pair.source, online


def _all_cells(cells: BEVCells) -> BEVCells:
    """Return every cell of the map, empty ones zero."""
    height, width = cells.shape
    dense = cells.dense().features.permute(0, 2, 3, 1).flatten(0, 2)
    index = torch.arange(len(dense), device=dense.device)
    coords = torch.stack([index // (height * width), index // width % height, index % width], 1)
    return BEVCells(coords, dense, cells.grid, cells.shape, cells.stride, cells.batch_size)


def _as_mask(rows: Tensor, num_rows: int) -> Float[Tensor, " N"]:
    return torch.zeros(num_rows, device=rows.device).index_fill(0, rows, 1.0)
