"""PointInfoNCE: a point keeps its feature under translation, scale and mirror, and differs from other points."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.objectives.cells import as_columns, column_stride
from equilidar.objectives.heads import looked_at, projection_head
from equilidar.objectives.reduction import all_processes_sum, masked_mean
from equilidar.objectives.sampling import sample_matches
from equilidar.objectives.switches import one_of
from equilidar.ops.interpolate import interpolate_voxels
from equilidar.structures import BackboneFeatures, GridSpec, LossTerms, PairFeatures, SparseVoxels, View
from equilidar.structures import offsets as batch_offsets
from equilidar.structures.grid import IntTriple
from equilidar.structures.host_sync import allowed_sync, rows_where

BEV = "bev"
Interpolation = Literal["nearest", "trilinear"]


class PointContrast(nn.Module):
    """PointInfoNCE (PointContrast, Xie et al., ECCV 2020) as E-SSL3D uses it (L_pnce, Hegde et al., ECCV 2024).

        L = - sum_{(i,j) in P+} log( exp(x_i . x_j / tau) / sum_{(.,k) in P+} exp(x_i . x_k / tau) )

    x are unit-norm features of view a (i) and view b (j, k) at matched points. A constant encoder gives ln K per pair
    of a cloud with K pairs.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"a", "b"})

    def __init__(
        self,
        *,
        features: FeatureInfo,
        temperature: float = 0.07,
        level: str | Sequence[str] = "conv4",
        interpolation: str = "trilinear",
        max_pairs: int = 2048,
        deduplicate: bool = True,
        negatives: str = "cloud",
        reduction: str = "mean",
        projector: Sequence[int] = (128, 32),
        weight: float = 1.0,
    ) -> None:
        """Build the projector.

        Args:
            features: what the backbone gives.
            temperature: tau.
            level: a stage by name, several (their features are concatenated), or "bev".
            interpolation: "nearest" | "trilinear": how sparse features are read at points.
            max_pairs: matched points per cloud.
            deduplicate: at most one pair in each cell of the coarsest level, in either view.
            negatives: "cloud" | "batch": the other pairs of the same cloud, or of this process's whole batch.
            reduction: "mean" over pairs; "sum" over a cloud's pairs, as printed, then mean over clouds.
            projector: widths of the head's layers; empty contrasts the backbone's features themselves.
            weight: factor in the total; the paper's 0.01 belongs to "sum".

        Raises:
            ValueError: an unknown switch or stage.
        """
        super().__init__()
        self.levels = (level,) if isinstance(level, str) else tuple(level)
        known = [*features.channels, BEV]
        if not self.levels or not set(self.levels) <= set(known):
            raise ValueError(f"point_contrast.level must name stages out of {known}, got {list(self.levels)}")
        if temperature <= 0 or max_pairs < 1:
            raise ValueError(
                f"point_contrast needs temperature > 0 and max_pairs >= 1, got {temperature} and {max_pairs}"
            )
        self.features, self.temperature, self.weight = features, temperature, weight
        self.interpolation: Interpolation = one_of(
            "point_contrast.interpolation", interpolation, ("nearest", "trilinear")
        )
        self.negatives = one_of("point_contrast.negatives", negatives, ("cloud", "batch"))
        self.reduction = one_of("point_contrast.reduction", reduction, ("mean", "sum"))
        self.max_pairs, self.deduplicate = max_pairs, deduplicate
        channels = sum(features.bev_channels if name == BEV else features.channels[name] for name in self.levels)
        self.projector = projection_head((channels, *projector)) if projector else nn.Identity()

    def forward(self, pair: PairFeatures) -> LossTerms:
        """Return the term "info_nce"."""
        x_a, x_b, known, offsets = self._embed(pair)
        pooled = self.negatives == "batch"
        groups = torch.stack([offsets[0], offsets[-1]]) if pooled else offsets
        losses, correct = info_nce(x_a, x_b, known, groups, self.temperature)
        clouds = losses.new_full((), float(pair.views.batch_size))
        term = masked_mean(losses, known, count=clouds if self.reduction == "sum" else None)
        matched = torch.zeros_like(pair.views.a.origin).index_fill(0, pair.views.matches[:, 0], 1)
        metrics = {
            "pairs": all_processes_sum(known.sum().float()),
            "retrieved": masked_mean(correct.float(), known),
            "matched_points": masked_mean(matched.float()),
        }
        return LossTerms({"info_nce": term}, {"info_nce": self.weight}, metrics)

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return nothing: there is no target network."""
        return []

    def embeddings(self, pair: PairFeatures) -> dict[str, Float[Tensor, "N D"]]:
        """Return view a's unit-norm features at the sampled points."""
        with looked_at(self.projector):
            x_a, _, known, _ = self._embed(pair)
        return {"points": x_a[rows_where(known, "a look, every so many steps")]}

    def _embed(self, pair: PairFeatures) -> tuple[Tensor, Tensor, Bool[Tensor, " P"], Int64[Tensor, " B1"]]:
        """Return unit-norm features of both views at sampled matches, which are known, and batch offsets."""
        grid = pair.a.last.grid
        stride = self._coarsest_stride(grid) if self.deduplicate else None
        matches, offsets = sample_matches(pair.views, grid, stride, self.max_pairs)
        item = batch_offsets.to_batch_index(offsets, len(matches))
        values_a, found_a = self._read(pair.a, pair.views.a, matches[:, 0], item)
        values_b, found_b = self._read(pair.b, pair.views.b, matches[:, 1], item)
        # One pass: BatchNorm sees both views alike.
        projected = self.projector(torch.cat([values_a, values_b])).float()
        x_a, x_b = F.normalize(projected, dim=1).chunk(2)
        return x_a, x_b, found_a & found_b, offsets

    def _coarsest_stride(self, grid: GridSpec) -> IntTriple:
        strides = [
            column_stride(grid, self.features.bev_stride) if name == BEV else self.features.strides[name]
            for name in self.levels
        ]
        z, y, x = (max(axis) for axis in zip(*strides, strict=True))
        return z, y, x

    def _read(
        self, encoded: BackboneFeatures, view: View, rows: Int64[Tensor, " P"], item: Int64[Tensor, " P"]
    ) -> tuple[Float[Tensor, "P C"], Bool[Tensor, " P"]]:
        xyz = view.points.xyz[rows]
        read = [interpolate_voxels(self._voxels(encoded, name), xyz, item, self.interpolation) for name in self.levels]
        return torch.cat([values for values, _ in read], 1), torch.stack([found for _, found in read]).all(0)

    def _voxels(self, encoded: BackboneFeatures, name: str) -> SparseVoxels:
        return as_columns(encoded.bev_cells()) if name == BEV else encoded.stages[name]


def info_nce(
    x_a: Float[Tensor, "P D"],
    x_b: Float[Tensor, "P D"],
    known: Bool[Tensor, " P"],
    offsets: Int64[Tensor, " G1"],
    temperature: float,
) -> tuple[Float[Tensor, " P"], Bool[Tensor, " P"]]:
    """Return each pair's -log softmax among its group's known pairs, and whether its partner was the most similar.

    Args:
        x_a: unit-norm features, row i of which matches row i of `x_b`.
        x_b: the candidates.
        known: pairs that count; the others are no negatives, and their loss means nothing.
        offsets: which pairs are compared with one another.
        temperature: tau.
    """
    group = batch_offsets.to_batch_index(offsets, len(x_a))
    place = torch.arange(len(x_a), device=x_a.device) - offsets[group]
    num_groups, longest = len(offsets) - 1, _longest(offsets)

    def padded(rows: Tensor) -> Tensor:
        return rows.new_zeros(num_groups, longest, *rows.shape[1:]).index_put((group, place), rows)

    with torch.autocast(x_a.device.type, enabled=False):
        similarity = padded(x_a.float()) @ padded(x_b.float()).mT / temperature
    lowest = torch.finfo(similarity.dtype).min
    similarity = similarity.masked_fill(~padded(known)[:, None, :], lowest)
    own = similarity.diagonal(dim1=1, dim2=2)
    losses = similarity.logsumexp(2) - own
    correct = own >= similarity.amax(2) if longest else own.bool()
    return losses[group, place], correct[group, place]


def _longest(offsets: Tensor) -> int:
    if len(offsets) < 2:
        return 0
    # Selecting the pairs waited just before, so that little is left to wait for; a fixed size would cost its square.
    with allowed_sync("size of the table of similarities"):
        return int(offsets.diff().max())
