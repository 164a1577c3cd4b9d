"""Proposals: the first stage's best boxes, which the second stage looks at again."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.detection.decode import BoxSelection, decode_predictions
from equilidar.detection.predictions import AnchorPredictions
from equilidar.structures import Detections
from equilidar.structures.host_sync import allowed_sync
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class Proposals(Movable):
    """Regions of interest (RoIs) of B sweeps, the same number R in each, best first.

    Attributes:
        boxes: (B, R, 7) x, y, z, length, width, height, yaw; a unit box at the origin where there is none.
        labels: (B, R) int64 index into the detector's classes.
        valid: (B, R) whether there is one: sweeps with fewer than R are padded.
        finite: (B,) whether all that the first stage said of the sweep was finite.
    """

    boxes: Float[Tensor, "B R 7"]
    labels: Int64[Tensor, "B R"]
    valid: Bool[Tensor, "B R"]
    finite: Bool[Tensor, " B"]


@torch.no_grad()
def propose(predictions: AnchorPredictions, selection: BoxSelection) -> Proposals:
    """Return the boxes of an anchor head that survive suppression; no gradient.

    Args:
        predictions: raw outputs.
        selection: how many, and how much they may overlap; its `max_boxes` is R.
    """
    with allowed_sync("which boxes are proposals: what enters suppression and what leaves it"):
        found = selection(decode_predictions(predictions))
    return _padded(found, selection.max_boxes)


def _padded(found: Detections, length: int) -> Proposals:
    assert found.finite is not None
    boxes = found.boxes
    item = boxes.batch_index
    place = torch.arange(len(boxes), device=item.device) - boxes.offsets[item]
    rows = boxes.center.new_zeros(boxes.batch_size, length, 7)
    rows[..., 3:6] = 1.0
    labels = boxes.label.new_zeros(boxes.batch_size, length)
    rows[item, place], labels[item, place] = boxes.as_tensor(), boxes.label
    valid = torch.arange(length, device=item.device) < boxes.offsets.diff()[:, None]
    return Proposals(rows, labels, valid, found.finite)
