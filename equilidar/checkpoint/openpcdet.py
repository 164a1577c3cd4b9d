"""OpenPCDet's weights in and out (open-mmlab/OpenPCDet, commit 8cacccec).

Modules of our networks have OpenPCDet's names inside, so that only prefixes differ: `backbone_keys` for backbones,
`equilidar.detection.openpcdet_keys` for whole detectors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from equilidar.atomic_file import atomic_file
from equilidar.checkpoint.backbone_keys import OPENPCDET, OPENPCDET_FILE
from equilidar.checkpoint.importing import ImportSettings, import_state, input_layer
from equilidar.checkpoint.key_map import KeyMap
from equilidar.checkpoint.load_report import LoadReport
from equilidar.checkpoint.record import FileRecord
from equilidar.checkpoint.sparse_layout import from_krsc, is_kernel, layout_named

# Order of a detector's modules in OpenPCDet's state (`Detector3DTemplate.module_topology`), after `global_step`.
_MODULES = ("vfe", "backbone_3d", "pfe", "backbone_2d", "dense_head", "point_head", "roi_head")


def load_openpcdet_state(
    backbone: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    layout: str | None = None,
    source: str = "OpenPCDet state",
    threshold: float = 1.0,
) -> LoadReport:
    """Load the backbone of an OpenPCDet model's state, and print what was loaded.

    Args:
        backbone: one of ours that OpenPCDet has as well.
        state_dict: the whole model's state, wrapped or not; other modules than the backbone are left out.
        layout: see `ImportSettings`.
        source: name for messages.
        threshold: fraction of the backbone's tensors that must be covered.

    Raises:
        ValueError: the backbone is not covered, or the layout is not clear.
    """
    settings = ImportSettings(layout=layout, threshold=threshold)
    return import_state(backbone, state_dict, OPENPCDET, input_layer(backbone), source, settings)


def to_openpcdet_state(network: nn.Module, keys: KeyMap = OPENPCDET_FILE, layout: str = "krsc") -> dict[str, Tensor]:
    """Return a network's state under OpenPCDet's names, in OpenPCDet's order.

    Args:
        network: a backbone, or a detector with its own table.
        keys: table of names, from the top of OpenPCDet's state.
        layout: axis order of sparse kernels: krsc for its spconv >= 2.2.

    Raises:
        ValueError: a tensor has no name there.
    """
    layout = layout_named(layout)
    state: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        key = keys.theirs(name)
        if key is None:
            raise ValueError(f"{type(network).__name__}: OpenPCDet has no name for {name}")
        value = value.detach().cpu()
        state[key] = (from_krsc(value, layout) if is_kernel(value) else value).contiguous().clone()
    return dict(sorted(state.items(), key=lambda item: _MODULES.index(item[0].partition(".")[0])))


def write_openpcdet(
    path: Path | str, state: Mapping[str, Tensor], record: FileRecord, about: Mapping[str, Any]
) -> None:
    """Write a state as OpenPCDet's `.pth` or, by its suffix, as safetensors; whole or not at all.

    Args:
        path: *.pth or *.safetensors.
        state: under OpenPCDet's names.
        record: what the tensors mean; OpenPCDet does not look at it.
        about: `epoch`, `it` and `version` of the training, where known.

    Raises:
        ValueError: another suffix.
    """
    path = Path(path)
    if path.suffix not in (".pth", ".safetensors"):
        raise ValueError(f"output: an OpenPCDet checkpoint is a .pth or .safetensors file, got {path.name}")
    with atomic_file(path) as file:
        if path.suffix == ".safetensors":
            file.write(safetensors.torch.save(dict(state), record.as_metadata()))
            return
        known = {name: about[name] for name in ("epoch", "it") if name in about}
        version = str(about.get("version", "exported by equilidar"))
        content = {**known, "model_state": dict(state), "optimizer_state": None, "version": version}
        # OpenPCDet writes the older serialisation too, for PyTorch before 1.6.
        torch.save({**content, "equilidar": record.as_dict()}, file, _use_new_zipfile_serialization=False)
