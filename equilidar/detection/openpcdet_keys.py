"""Loads OpenPCDet's weights for SECOND.

What OpenPCDet calls (commit 8cacccec, cfgs/kitti_models/second.yaml) and what it is here:

    backbone_3d.REST                  backbone.REST            (VoxelBackBone8x has the same names)
    backbone_2d.blocks.I.J.NAME       neck.blocks.I.(J-1).NAME (its J = 0 is the padding, here the convolution's)
    backbone_2d.deblocks.REST         neck.deblocks.REST
    dense_head.REST                   head.REST
    roi_head, pfe, point_head          the same (Voxel R-CNN, PV-RCNN)
    global_step                       left out (a counter of training steps)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

_SKIPPED = ("global_step",)
_PREFIXES = {"vfe.": "backbone.vfe.", "backbone_3d.": "backbone.", "backbone_2d.": "neck.", "dense_head.": "head."}
_PREFIXES |= {name: name for name in ("roi_head.", "pfe.", "point_head.")}


@dataclass(frozen=True)
class OpenPCDetReport:
    """What became of a state dict, by OpenPCDet's keys.

    Attributes:
        loaded: keys whose values are in the model now.
        skipped: keys that mean nothing here.
    """

    loaded: tuple[str, ...]
    skipped: tuple[str, ...]


def our_key(key: str) -> str | None:
    """Return the name here of an OpenPCDet key; None for keys that mean nothing here.

    Raises:
        ValueError: the key belongs to no part of SECOND.
    """
    if key in _SKIPPED:
        return None
    for theirs, ours in _PREFIXES.items():
        if key.startswith(theirs):
            renamed = ours + key.removeprefix(theirs)
            block = re.fullmatch(r"neck\.blocks\.(\d+)\.(\d+)\.(\w+)", renamed)
            return f"neck.blocks.{block[1]}.{int(block[2]) - 1}.{block[3]}" if block else renamed
    raise ValueError(f"OpenPCDet key {key} belongs to no part of SECOND")


def load_openpcdet_state(model: nn.Module, state: Mapping[str, Tensor]) -> OpenPCDetReport:
    """Copy the weights of an OpenPCDet SECOND into ours.

    Args:
        model: a `SECOND` of the same sizes.
        state: `model_state` of an OpenPCDet checkpoint; sparse convolutions in the layout of spconv 2
            (out, kz, ky, kx, in) or of spconv 1 (kz, ky, kx, in, out).

    Raises:
        ValueError: a key is unknown, missing or of another shape; the model is unchanged then.
    """
    target = model.state_dict()
    converted: dict[str, Tensor] = {}
    problems: list[str] = []
    skipped = tuple(key for key in state if our_key(key) is None)
    for key, value in state.items():
        name = our_key(key)
        if name is None:
            continue
        if name not in target:
            problems.append(f"{key}: the model has no {name}")
            continue
        if value.dim() == 5 and value.shape != target[name].shape:
            value = value.permute(4, 0, 1, 2, 3)
        if value.shape != target[name].shape:
            problems.append(f"{key}: shape {tuple(value.shape)}, the model has {tuple(target[name].shape)}")
        converted[name] = value
    problems += [f"{name}: not in the checkpoint" for name in target if name not in converted]
    if problems:
        raise ValueError(
            f"OpenPCDet weights do not fit this model ({len(problems)} problems): {'; '.join(problems[:5])}"
        )
    model.load_state_dict(converted)
    return OpenPCDetReport(tuple(key for key in state if key not in skipped), skipped)
