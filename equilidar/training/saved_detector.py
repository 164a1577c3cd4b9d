"""From a detector's file to the network, and whether points are what it was trained on."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from equilidar.checkpoint.detector import SavedDetector
from equilidar.data.protocols import LabelledDataset, PairDataset, require_labelled
from equilidar.detection.detector import Detector
from equilidar.structures import SensorContract


def build_detector(saved: SavedDetector, parts: dict[str, Callable[..., Any]], source: str) -> Detector:
    """Build the network of a file and load its weights.

    Args:
        saved: the file.
        parts: `backbone` and `detector` of its config, instantiated (both partial).
        source: name of the file, for messages.
    """
    backbone: nn.Module = parts["backbone"](in_channels=3 + len(saved.contract.channels))
    detector: Detector = parts["detector"](backbone=backbone, class_names=saved.class_names)
    saved.load_into(detector, source)
    return detector.eval()


def check_input(saved: SavedDetector, dataset: LabelledDataset | PairDataset) -> None:
    """Raise ValueError unless a dataset is labelled and feeds a detector what it was trained on."""
    dataset = require_labelled(dataset, "evaluation")
    check_points(saved, dataset.contract)
    if tuple(dataset.class_names) != saved.class_names:
        raise ValueError(
            f"checkpoint: the detector's labels mean {', '.join(saved.class_names)}, the dataset's "
            f"{', '.join(dataset.class_names)}: give the same dataset.class_names"
        )


def check_points(saved: SavedDetector, contract: SensorContract) -> None:
    """Raise ValueError, with what to do, unless points mean what those meant that a detector was trained on."""
    wanted = saved.contract
    if contract == wanted:
        return
    if contract.channels != wanted.channels:
        remedy = f"read the channels {_list(wanted.channels)}"
        if "time" in wanted.channels and "time" not in contract.channels:
            remedy += (
                "; time is the lag of accumulated sweeps: accumulate as many as in training, or read a time channel"
            )
    elif contract.scales != wanted.scales:
        remedy = f"give the scales {_list(wanted.scales)}, the raw value that is stored as 1.0"
    else:
        remedy = f"move the points into the {wanted.frame}'s frame"
    raise ValueError(
        f"checkpoint: the detector was trained on points with {describe(wanted)}, these have {describe(contract)}: "
        f"{remedy}"
    )


def describe(contract: SensorContract) -> str:
    """Return a contract in words."""
    scaled = [f"{n} / {scale:g}" for n, scale in zip(contract.channels, contract.scales, strict=True)]
    return f"channels {_list(scaled)} in the {contract.frame}'s frame"


def _list(values: Iterable[object]) -> str:
    return f"[{', '.join(map(str, values))}]"
