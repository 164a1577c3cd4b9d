"""Encodes the views of a pair: each distinct view once, whatever number of objectives reads it."""

import torch
from jaxtyping import Bool
from torch import Tensor

from equilidar.backbones.feature_info import Backbone
from equilidar.structures import BackboneFeatures, PairFeatures, PointCloudBatch, SparseVoxels, ViewPair
from equilidar.structures.host_sync import allowed_sync
from equilidar.structures.moving import map_tensors


def encode_views(views: ViewPair, online: Backbone, target: Backbone | None) -> PairFeatures:
    """Encode all views of the later sweep in one pass of the online network, the source sweep by the target network.

    Features are float32 whatever precision the networks run in, and so are the losses made from them.

    Args:
        views: of B pairs.
        online: gets gradients; its BatchNorm sees all views together.
        target: gets none; None if no objective reads the source.
    """
    shown = [views.a, views.b] if views.temporal is None else [views.a, views.b, views.temporal]
    encoded = online.encode(PointCloudBatch.collate([view.points for view in shown]))
    parts = split_features(to_float32(encoded), len(shown))
    source = None
    if target is not None and views.source is not None:
        with torch.no_grad():
            source = to_float32(target.encode(views.source.view.points))
    return PairFeatures(views, parts[0], parts[1], source, parts[2] if views.temporal is not None else None)


def split_features(features: BackboneFeatures, num_parts: int) -> list[BackboneFeatures]:
    """Split the features of a batch into `num_parts` batches of as many items each, in order."""
    masks = {name: _rows_of_parts(voxels, num_parts) for name, voxels in features.stages.items()}
    with allowed_sync("number of voxels of each view, for all stages at once"):
        sizes = torch.stack([mask.sum(1) for mask in masks.values()]).tolist()
    stages = {
        name: _split(voxels, masks[name], counts)
        for (name, voxels), counts in zip(features.stages.items(), sizes, strict=True)
    }
    return [BackboneFeatures({name: parts[i] for name, parts in stages.items()}) for i in range(num_parts)]


def _rows_of_parts(voxels: SparseVoxels, num_parts: int) -> Bool[Tensor, "P V"]:
    """Tell which voxels belong to which part."""
    items = voxels.batch_size // num_parts
    if items * num_parts != voxels.batch_size:
        raise ValueError(f"a batch of {voxels.batch_size} items cannot be split into {num_parts} equal parts")
    part = voxels.coords[:, 0].div(max(items, 1), rounding_mode="floor")
    return part == torch.arange(num_parts, device=part.device)[:, None]


def _split(voxels: SparseVoxels, masks: Bool[Tensor, "P V"], counts: list[int]) -> list[SparseVoxels]:
    """Split voxels into batches of as many items each; rows keep their order."""
    items = voxels.batch_size // len(counts)
    split = []
    for i, (mask, count) in enumerate(zip(masks, counts, strict=True)):
        rows = mask.nonzero_static(size=count)[:, 0]
        coords = voxels.coords[rows]
        coords[:, 0] -= i * items
        split.append(SparseVoxels(coords, voxels.features[rows], voxels.grid, voxels.shape, voxels.stride, items))
    return split


def to_float32(features: BackboneFeatures) -> BackboneFeatures:
    """Return the features as float32; coordinates stay as they are."""

    def widen(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() else tensor

    return map_tensors(features, widen)
