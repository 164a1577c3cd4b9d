"""Detections of batches as those of single sweeps, and of all processes together."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from equilidar.detection.detector import Detector
from equilidar.structures import Boxes3D, Detections, PointCloudBatch
from equilidar.training.step_record import NonFiniteError


def detect(detector: Detector, points: PointCloudBatch, keys: Sequence[str]) -> dict[str, Detections]:
    """Return what a detector finds in each sweep of a batch, by its key, on the host."""
    found = detector.decode(detector(points)).to("cpu")
    return dict(zip(keys, split_detections(found), strict=True))


def stop_if_not_finite(found: Mapping[str, Detections], detector: nn.Module, most: int = 5) -> None:
    """Stop where what a detector said of a sweep is not finite: it would pass for a sweep in which nothing is.

    Args:
        found: by sweep, on the host.
        detector: what found it.
        most: sweeps and tensors that are named.

    Raises:
        NonFiniteError: with the sweeps, and the tensors of the detector that are not finite themselves.
    """
    keys = [key for key, item in found.items() if not _is_finite(item)]
    if not keys:
        return
    broken = [name for name, value in detector.state_dict().items() if not bool(value.isfinite().all())]
    why = (
        f"the detector's own {_named(broken, most)} are not finite: its training diverged; take an earlier checkpoint, "
        "or train again with a lower learning rate"
        if broken
        else "its weights are finite: look at these sweeps' values (python tools/view.py) and at the scales that they "
        "are read by, or compute in float32"
    )
    raise NonFiniteError(
        f"the detector's outputs are not finite in {len(keys)} of {len(found)} sweeps, {_named(keys, most)}; {why}"
    )


def _is_finite(found: Detections) -> bool:
    """Tell whether a sweep's detections mean something, also those of a detector that does not say so itself."""
    said = found.finite is None or bool(found.finite.all())
    return said and bool(found.scores.isfinite().all()) and bool(found.boxes.as_tensor().isfinite().all())


def _named(names: Sequence[str], most: int) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def split_detections(found: Detections) -> list[Detections]:
    """Return the detections of each sweep as a batch of one."""
    lengths = found.offsets.diff().tolist()
    parts: list[Boxes3D] = found.boxes.split()
    scores = found.scores.split(lengths)
    finite = [None] * len(parts) if found.finite is None else found.finite.split(1)
    return [Detections(*part) for part in zip(parts, scores, finite, strict=True)]


def gather_detections(own: dict[str, Detections]) -> dict[str, Detections]:
    """Return the detections of all processes; every sweep was read by exactly one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return own
    parts: list[dict[str, Detections] | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {key: value for part in parts if part is not None for key, value in part.items()}
