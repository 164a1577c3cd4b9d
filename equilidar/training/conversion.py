"""Networks from one code base's file to another's: what tools/convert.py does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import equilidar.backbones
from equilidar.backbones.feature_info import Backbone
from equilidar.checkpoint import SavedBackbone, read_backbone, save_backbone, to_openpcdet_state
from equilidar.checkpoint.backbone_keys import OPENPCDET_FILE, SOURCES, backbone_keys
from equilidar.checkpoint.detector import DETECTOR_FORMAT, SavedDetector, read_detector, save_detector
from equilidar.checkpoint.foreign_file import ForeignFile
from equilidar.checkpoint.identity import contract_from
from equilidar.checkpoint.importing import ImportSettings, import_state, input_layer
from equilidar.checkpoint.load_report import load_covering
from equilidar.checkpoint.openpcdet import write_openpcdet
from equilidar.checkpoint.record import FileRecord
from equilidar.checkpoint.sparse_layout import layout_named
from equilidar.checkpoint.whole_file import format_of
from equilidar.detection.detector import Detector
from equilidar.detection.openpcdet_keys import DETECTOR_KEYS, load_openpcdet_state
from equilidar.structures import GridSpec, SensorContract
from equilidar.training.saved_detector import build_detector

OURS = "equilidar"
PARTS = ("backbone", "detector")
_SUFFIXES = {OURS: (".safetensors",), "openpcdet": (".pth", ".safetensors")}


@dataclass(frozen=True)
class HandedNetwork:
    """A network with its weights, on its way from file to file.

    Attributes:
        network: a backbone or a `Detector`.
        contract: meaning of its points.
        config: `grid`, `backbone` and `detector` that build a detector; empty for a backbone.
        class_names: of a detector's labels.
        provenance: what is known of the weights; `imported` holds what a foreign file said of itself.
    """

    network: nn.Module
    contract: SensorContract
    config: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def backbone(self) -> Backbone:
        """The backbone of a detector, or the backbone that it is."""
        backbone = self.network.backbone if isinstance(self.network, Detector) else self.network
        assert isinstance(backbone, Backbone)
        return backbone

    def only_backbone(self) -> "HandedNetwork":
        """Leave out all but the backbone."""
        backbone = self.backbone
        assert isinstance(backbone, nn.Module)
        return HandedNetwork(backbone, self.contract, provenance=self.provenance)


def check_request(source: str, target: str, part: str | None, input_: Path, output: Path) -> None:
    """Raise ValueError, before anything is read, unless these fit one another."""
    if source not in (*SOURCES, OURS):
        raise ValueError(f"source must be one of {', '.join((*SOURCES, OURS))}, got {source!r}")
    if target not in _SUFFIXES:
        raise ValueError(f"target must be {' or '.join(_SUFFIXES)}, got {target!r}")
    if part not in (None, *PARTS):
        raise ValueError(f"part must be null or one of {', '.join(PARTS)}, got {part!r}")
    if output.suffix not in _SUFFIXES[target]:
        raise ValueError(f"output: target={target} is written as *{' or *'.join(_SUFFIXES[target])}, got {output.name}")
    if output.resolve() == input_.resolve():
        raise ValueError(f"output is the input: {output}; give another name")


def read_ours(path: Path | str) -> SavedBackbone | SavedDetector:
    """Read a file that this package wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of ours, or damaged.
    """
    return read_detector(path) if format_of(path) == DETECTOR_FORMAT else read_backbone(path)


def rebuild(saved: SavedBackbone | SavedDetector, parts: Mapping[str, Any], source: str) -> HandedNetwork:
    """Build the network that a file of ours describes, and load it.

    Args:
        saved: the file.
        parts: of a detector's config, instantiated.
        source: the file, for messages.

    Raises:
        ValueError: it is of a class that this version does not have.
    """
    if isinstance(saved, SavedDetector):
        detector = build_detector(saved, dict(parts), source)
        return HandedNetwork(detector, saved.contract, saved.config, saved.class_names, saved.provenance)
    identity = saved.identity
    make = getattr(equilidar.backbones, identity.class_name, None)
    if make is None or not identity.backbone.startswith("equilidar."):
        raise ValueError(f"{source} holds a {identity.backbone}, which this version cannot build")
    grid = GridSpec.from_range([*identity.grid["low"], *identity.grid["high"]], identity.grid["voxel_size"])
    backbone = make(grid, identity.in_channels, **identity.arguments)
    load_covering(backbone, saved.tensors, source)
    return HandedNetwork(backbone, contract_from(identity.contract), provenance=saved.provenance)


def build(
    parts: Mapping[str, Any], contract: SensorContract, config: Mapping[str, Any], class_names: Sequence[str]
) -> HandedNetwork:
    """Build a backbone, or a detector on it where `parts` have one; weights are as initialised.

    Args:
        parts: `backbone` and `detector` (None for a backbone), both still to be completed.
        contract: meaning of the points that it will be fed.
        config: what the parts were made from.
        class_names: of the detector's labels.
    """
    backbone = parts["backbone"](in_channels=3 + len(contract.channels))
    if parts["detector"] is None:
        return HandedNetwork(backbone, contract)
    detector = parts["detector"](backbone=backbone, class_names=tuple(class_names))
    return HandedNetwork(detector, contract, config, tuple(class_names))


def import_network(file: ForeignFile, source: str, handed: HandedNetwork, settings: ImportSettings) -> HandedNetwork:
    """Load a foreign file into a network that was built for it, and print what became of each tensor.

    Raises:
        ValueError: the file does not cover the network, or its layout or input is not clear.
    """
    if file.record is not None and file.record.format.startswith(OURS):
        raise ValueError(f"{file.source} is a file of this package: give source={OURS}")
    if settings.layout is None and file.record is not None:
        settings = replace(settings, layout=file.record.spconv_layout)
    network = handed.network
    if not isinstance(network, Detector):
        keys = backbone_keys(source, network)
        report = import_state(network, file.tensors, keys, input_layer(network), file.source, settings)
    elif source == "openpcdet":
        report = load_openpcdet_state(network, file.tensors, source=file.source, settings=settings)
    else:
        raise ValueError(
            f"source={source}: only backbones are imported, for its heads order anchors, box sizes and headings "
            "otherwise; leave detector= out, and finetune a detector from the backbone"
        )
    counters = (value for key, value in file.tensors.items() if key.endswith("global_step") and value.numel() == 1)
    steps = next((int(value) for value in counters), None)
    said = {**file.about, **({} if steps is None else {"global_step": steps})}
    imported = {"source": source, "file": Path(file.source).name, "coverage": report.coverage, **said}
    return replace(handed, provenance={"imported": {**imported, "notes": list(report.notes)}})


def write_network(handed: HandedNetwork, output: Path, target: str, layout: str = "krsc") -> None:
    """Write a network as this package's file or as OpenPCDet's.

    Args:
        handed: what to write.
        output: the file.
        target: "equilidar" or "openpcdet".
        layout: axis order of sparse kernels in OpenPCDet's file.

    Raises:
        ValueError: OpenPCDet has no such network.
    """
    network, backbone = handed.network, handed.backbone
    if target == OURS and isinstance(network, Detector):
        about = {"class_names": handed.class_names, "contract": handed.contract, "provenance": handed.provenance}
        save_detector(output, network, config=handed.config, **about)
    elif target == OURS:
        save_backbone(output, backbone, handed.contract, dict(handed.provenance))
    else:
        layout = layout_named(layout)
        about = handed.provenance.get("imported", {})
        if isinstance(network, Detector):
            # OpenPCDet counts its steps in a buffer of the detector itself.
            steps = {"global_step": torch.tensor([about.get("global_step", 0)])}
            state = steps | to_openpcdet_state(network, DETECTOR_KEYS, layout)
        else:
            state = to_openpcdet_state(network, OPENPCDET_FILE, layout)
        kind = type(backbone).__name__
        record = FileRecord.of("openpcdet", kind, backbone.in_channels, backbone.grid, layout)
        write_openpcdet(output, state, record, about)
