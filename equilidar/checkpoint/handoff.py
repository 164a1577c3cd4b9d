"""Saves a backbone with its identity, and loads it strictly: from pretraining to detection.

The file is safetensors (no code in it); identity and provenance are JSON in its metadata.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from equilidar.backbones.feature_info import Backbone
from equilidar.checkpoint.identity import BackboneIdentity, content_hash, tensors_of
from equilidar.checkpoint.load_report import LoadReport, load_covering
from equilidar.checkpoint.record import FileRecord
from equilidar.checkpoint.whole_file import read_described, write_whole
from equilidar.structures import SensorContract

BACKBONE_FORMAT = "equilidar-backbone-1"

# What to do about a difference, by the start of the field's name.
_REMEDIES = {
    "grid.voxel_size": "choose the grid that the file was trained on, or pretrain on this one",
    "contract": "feed the same channels, in the same units and frame, or pretrain on this data set",
    "in_channels": "feed the same point channels",
    "backbone": "configure the backbone as the file's",
    "weight_layout": "convert the file's sparse kernels",
    "box_convention": "use a version of this package with that convention",
}


@dataclass(frozen=True)
class SavedBackbone:
    """A backbone's file.

    Attributes:
        tensors: its state.
        identity: what the weights are good for.
        provenance: what the run that wrote it says of itself.
    """

    tensors: dict[str, Tensor]
    identity: BackboneIdentity
    provenance: dict[str, Any]


def save_backbone(
    path: Path | str, backbone: Backbone, contract: SensorContract, provenance: dict[str, Any]
) -> BackboneIdentity:
    """Write a backbone's weights, identity and provenance; the file appears whole or not at all.

    Args:
        path: file to write, by custom "*.safetensors"; its folder is made.
        backbone: an `nn.Module` as well.
        contract: meaning of the points it was trained on.
        provenance: plain values for JSON: config, seed, data hashes, whether flow came from labels.

    Raises:
        ValueError: a weight is not finite, or the contract's channels are not the backbone's input.
    """
    tensors = tensors_of(_module(backbone))
    _check_contract(backbone, contract)
    identity = BackboneIdentity.of(backbone, contract, tensors)
    record = FileRecord.of(BACKBONE_FORMAT, identity.class_name, backbone.in_channels, backbone.grid)
    metadata = {"identity": identity.as_dict(), "provenance": provenance}
    write_whole(path, "backbone", tensors, record, metadata)
    return identity


def read_backbone(path: Path | str) -> SavedBackbone:
    """Read a file of `save_backbone` and verify its content hash.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file, is damaged, or holds no identity.
    """
    path = Path(path)
    remedy = (
        "it was not written by save_backbone; a checkpoint of another code base goes through tools/convert.py first, "
        "and so does the backbone of a detector (source=equilidar target=equilidar part=backbone)"
    )
    tensors, metadata = read_described(path, "backbone", BACKBONE_FORMAT, ("identity", "provenance"), remedy)
    try:
        identity = BackboneIdentity.from_dict(metadata["identity"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: its metadata cannot be read ({_one_line(error)})") from error
    if (actual := content_hash(tensors)) != identity.content_hash:
        raise ValueError(
            f"{path} is damaged: its tensors hash to {actual[:12]}, its identity says {identity.content_hash[:12]}"
        )
    return SavedBackbone(tensors, identity, metadata["provenance"])


def load_backbone(
    path: Path | str,
    backbone: Backbone,
    contract: SensorContract,
    *,
    threshold: float = 1.0,
    accept: Collection[str] = (),
) -> LoadReport:
    """Load weights into a backbone that is the same network for the same input, and print what was loaded.

    The grid's range may differ, for convolutions fit any; its voxel size may not. On any error the backbone is left
    as it was.

    Args:
        path: file of `save_backbone`.
        backbone: where to load, built.
        contract: meaning of the points that it will be fed.
        threshold: fraction of the backbone's tensors that must be covered.
        accept: fields of the identity that may differ, named as the error names them ("contract.scales").

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is of another network or input, or does not cover the backbone.
    """
    saved = read_backbone(path)
    _check_contract(backbone, contract)
    module = _module(backbone)
    wanted = BackboneIdentity.of(backbone, contract, {})
    differences = saved.identity.differences(wanted)
    notes = [f"{name} differs, as accepted: {_of_both(differences[name])}" for name in differences if name in accept]
    if refused := {name: values for name, values in differences.items() if name not in accept}:
        raise ValueError(_refusal(path, refused))
    for bound in ("low", "high"):
        if saved.identity.grid[bound] != wanted.grid[bound]:
            notes.append(f"grid.{bound} differs: {_of_both((saved.identity.grid[bound], wanted.grid[bound]))}")
    return load_covering(
        module,
        saved.tensors,
        str(path),
        threshold=threshold,
        content_hash=saved.identity.content_hash,
        notes=tuple(notes),
    )


def _refusal(path: Path | str, refused: dict[str, tuple[Any, Any]]) -> str:
    remedies = []
    for name in refused:
        remedy = next(text for start, text in _REMEDIES.items() if name.startswith(start))
        if remedy not in remedies:
            remedies.append(remedy)
    listed = "; ".join(f"{name}: {_of_both(values)}" for name, values in refused.items())
    return f"{path} is of another backbone: {listed}. To go on, {', or '.join(remedies)}; or accept={sorted(refused)}"


def _of_both(values: tuple[Any, Any]) -> str:
    return f"file {json.dumps(values[0])}, here {json.dumps(values[1])}"


def _check_contract(backbone: Backbone, contract: SensorContract) -> None:
    if backbone.in_channels != 3 + len(contract.channels):
        raise ValueError(
            f"backbone.in_channels is {backbone.in_channels}, but x, y, z and the contract's channels "
            f"{list(contract.channels)} make {3 + len(contract.channels)}"
        )


def _module(backbone: Backbone) -> nn.Module:
    assert isinstance(backbone, nn.Module)
    return backbone


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
