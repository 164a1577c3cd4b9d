"""OpenPCDet's weights in and out (open-mmlab/OpenPCDet, commit 8cacccec).

Key map of the backbone of SECOND, PV-RCNN, Voxel R-CNN (`VoxelBackBone8x`), theirs to ours:

    backbone_3d.conv_input.{0,1}.*          conv_input.{0,1}.*         0 convolution, 1 batch normalisation
    backbone_3d.conv1.0.{0,1}.*             conv1.0.{0,1}.*
    backbone_3d.conv{2,3,4}.{0,1,2}.{0,1}.* conv{2,3,4}.{0,1,2}.{0,1}.*   block 0 is the strided one
    backbone_3d.conv_out.{0,1}.*            conv_out.{0,1}.*

Modules are named alike, so that only the prefix goes. Batch normalisation has weight, bias, running_mean, running_var
and num_batches_tracked; convolutions have no bias. Sparse kernels are stored by spconv's version:

    krsc  (out, kz, ky, kx, in)   2.x implicit GEMM, and everything from 2.2: ours
    rsck  (kz, ky, kx, in, out)   1.x
    rskc  (kz, ky, kx, out, in)   2.0 and 2.1, native algorithm

Where in = out the latter two look alike, so the layout is an argument and is never guessed.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equilidar.checkpoint.load_report import LoadReport, load_covering

PREFIX = "backbone_3d."
_TO_KRSC: dict[str, tuple[int, ...]] = {"krsc": (0, 1, 2, 3, 4), "rsck": (4, 0, 1, 2, 3), "rskc": (3, 0, 1, 2, 4)}


def read_openpcdet_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Return the model's state of a `.pth` file: {"model_state": ...}, or the bare state; "model." is stripped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read without running code that it holds, or holds no tensors by name.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is damaged or holds more than tensors ({' '.join(str(error).split())[:200]}); if you trust its "
            "source, open it once with torch.load(weights_only=False) and save {'model_state': ...} alone"
        ) from error
    state: Any = content.get("model_state", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not any(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no model_state: it is no OpenPCDet checkpoint")
    return {str(name).removeprefix("model."): value for name, value in state.items() if isinstance(value, Tensor)}


def load_openpcdet_state(
    backbone: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    layout: str = "krsc",
    source: str = "OpenPCDet state",
    threshold: float = 1.0,
) -> LoadReport:
    """Load the `backbone_3d` part of an OpenPCDet model's state, and print what was loaded.

    Args:
        backbone: a `VoxelBackBone8x`.
        state_dict: the whole model's state; other modules than the backbone are left out.
        layout: axis order of its sparse kernels: krsc, rsck or rskc, see the module.
        source: name for messages.
        threshold: fraction of the backbone's tensors that must be covered.

    Raises:
        ValueError: the backbone is not covered; where another layout would fit, the message names it.
    """
    if layout not in _TO_KRSC:
        raise ValueError(f"layout must be one of {', '.join(_TO_KRSC)}, got {layout!r}")
    theirs = {name.removeprefix(PREFIX): value for name, value in state_dict.items() if name.startswith(PREFIX)}
    if not theirs:
        raise ValueError(f"{source} has no tensors under {PREFIX!r}; its keys begin with {sorted(_tops(state_dict))}")
    others = [layout_ for layout_ in _fitting_layouts(backbone, theirs) if layout_ != layout]
    if others and layout not in _fitting_layouts(backbone, theirs):
        raise ValueError(f"{source}: sparse kernels are not stored as layout={layout}; by their shapes, try {others}")
    left_out = sorted(_tops(state_dict) - {PREFIX.rstrip(".")})
    notes = (f"left out, not of the backbone: {', '.join(left_out)}",) if left_out else ()
    return load_covering(backbone, _to_krsc(theirs, layout), source, threshold=threshold, notes=notes)


def to_openpcdet_state(backbone: nn.Module) -> dict[str, Tensor]:
    """Return a backbone's state under OpenPCDet's names, for its spconv >= 2.2.

    A file that OpenPCDet reads is `torch.save({"model_state": state}, path)`.
    """
    return {PREFIX + name: value.detach().cpu().clone() for name, value in backbone.state_dict().items()}


def _to_krsc(tensors: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    order = _TO_KRSC[layout]
    return {name: value.permute(order) if value.dim() == 5 else value for name, value in tensors.items()}


def _fitting_layouts(backbone: nn.Module, theirs: Mapping[str, Tensor]) -> list[str]:
    """Return the layouts under which all sparse kernels that both sides have are of the right shape."""
    ours = {name: value.shape for name, value in backbone.state_dict().items() if value.dim() == 5}
    return [
        layout
        for layout in _TO_KRSC
        if all(value.shape == ours[name] for name, value in _to_krsc(theirs, layout).items() if name in ours)
    ]


def _tops(state_dict: Mapping[str, Tensor]) -> set[str]:
    return {name.partition(".")[0] for name in state_dict}
