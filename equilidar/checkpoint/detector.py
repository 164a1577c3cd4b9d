"""A finetuned detector on disk: weights, and the config that builds the network again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from equilidar.backbones.feature_info import Backbone
from equilidar.checkpoint.identity import contract_from
from equilidar.checkpoint.load_report import LoadReport, load_covering
from equilidar.checkpoint.record import FileRecord
from equilidar.checkpoint.whole_file import read_described, write_whole
from equilidar.structures import SensorContract

DETECTOR_FORMAT = "equilidar-detector-1"
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

    Args:
        path: file to write.
        detector: with its `backbone`.
        config: see `SavedDetector`.
        class_names: see `SavedDetector`.
        contract: see `SavedDetector`.
        provenance: plain values for JSON.

    Raises:
        ValueError: a weight is not finite.
    """
    backbone = detector.backbone
    assert isinstance(backbone, Backbone)
    record = FileRecord.of(DETECTOR_FORMAT, type(backbone).__name__, backbone.in_channels, backbone.grid)
    metadata = {
        "config": dict(config),
        "class_names": class_names,
        "contract": asdict(contract),
        "provenance": dict(provenance),
    }
    write_whole(path, "detector", detector.state_dict(), record, metadata)


def read_detector(path: Path | str) -> SavedDetector:
    """Read a file of `save_detector`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no detector, or its config names classes of other packages.
    """
    path = Path(path)
    remedy = "finetune.py writes one as detector.safetensors, and tools/convert.py imports them"
    names = ("config", "class_names", "contract", "provenance")
    tensors, values = read_described(path, "finetuned detector", DETECTOR_FORMAT, names, remedy)
    try:
        contract = contract_from(values["contract"])
    except ValueError as error:
        raise ValueError(f"{path}: its metadata cannot be read ({error})") from error
    config = values["config"]
    saved = SavedDetector(tensors, config, tuple(values["class_names"]), contract, values["provenance"])
    foreign = sorted(name for name in _targets(config) if not name.startswith(_TRUSTED))
    if foreign:
        raise ValueError(f"{path} wants to build {', '.join(foreign)}, which is none of ours: refused")
    return saved


def _targets(config: Any) -> set[str]:
    if isinstance(config, dict):
        own = {str(config["_target_"])} if "_target_" in config else set[str]()
        return own.union(*(_targets(value) for value in config.values()))
    if isinstance(config, list):
        return set[str]().union(*(_targets(value) for value in config))
    return set()
