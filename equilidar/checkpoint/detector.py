"""A finetuned detector on disk: weights, and the config that builds the network again."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from equilidar.atomic_file import atomic_file
from equilidar.checkpoint.load_report import LoadReport, check_finite, load_covering
from equilidar.checkpoint.whole_file import read_whole
from equilidar.structures import SensorContract

_FORMAT = "equilidar-detector-1"
# Configs in a file name classes to be built; a foreign file may name none but ours.
_TRUSTED = "equilidar."


@dataclass(frozen=True)
class SavedDetector:
    """A detector's file.

    Attributes:
        tensors: its state.
        config: `grid`, `backbone` and `detector` as composed for the run.
        class_names: of the dataset that it was trained on; labels refer to them.
        contract: meaning of the points it was trained on.
        provenance: what the run that wrote it says of itself.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    class_names: tuple[str, ...]
    contract: SensorContract
    provenance: dict[str, Any]

    def load_into(self, detector: nn.Module, source: str) -> LoadReport:
        """Copy the weights into a detector that was built from `config`.

        Raises:
            ValueError: they do not cover it.
        """
        return load_covering(detector, self.tensors, source)


def save_detector(
    path: Path | str,
    detector: nn.Module,
    *,
    config: Mapping[str, Any],
    class_names: tuple[str, ...],
    contract: SensorContract,
    provenance: Mapping[str, Any],
) -> None:
    """Write a detector; the file appears whole or not at all.

    Raises:
        ValueError: a weight is not finite.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    check_finite(tensors, "detector")
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(dict(config), sort_keys=True),
        "class_names": json.dumps(class_names),
        "contract": json.dumps(asdict(contract)),
        "provenance": json.dumps(dict(provenance), sort_keys=True),
    }
    content = safetensors.torch.save(tensors, metadata)
    with atomic_file(path) as file:
        file.write(content)


def read_detector(path: Path | str) -> SavedDetector:
    """Read a file of `save_detector`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no detector, or its config names classes of other packages.
    """
    path = Path(path)
    tensors, metadata = read_whole(path, "detector")
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"checkpoint: {path} is no finetuned detector (format {metadata.get('format')!r}, expected {_FORMAT!r}); "
            "finetune.py writes one as detector.safetensors"
        )
    try:
        config = json.loads(metadata["config"])
        contract = json.loads(metadata["contract"])
        saved = SavedDetector(
            tensors,
            config,
            tuple(json.loads(metadata["class_names"])),
            SensorContract(tuple(contract["channels"]), tuple(contract["scales"]), contract["frame"]),
            json.loads(metadata["provenance"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"checkpoint: the metadata of {path} cannot be read ({error})") from error
    foreign = sorted(name for name in _targets(config) if not name.startswith(_TRUSTED))
    if foreign:
        raise ValueError(f"checkpoint: {path} wants to build {', '.join(foreign)}, which is none of ours: refused")
    return saved


def _targets(config: Any) -> set[str]:
    if isinstance(config, dict):
        own = {str(config["_target_"])} if "_target_" in config else set[str]()
        return own.union(*(_targets(value) for value in config.values()))
    if isinstance(config, list):
        return set[str]().union(*(_targets(value) for value in config))
    return set()
