"""What an anchor head says."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from equilidar.detection.anchors import Anchors
from equilidar.structures.moving import Movable


@dataclass(slots=True)
class AnchorPredictions(Movable):
    """Raw outputs for B sweeps and A anchors, in the anchors' flat order.

    Attributes:
        class_logits: (B, A, K) before the sigmoid.
        box_deltas: (B, A, 7) residuals, see `box_coder`.
        direction_logits: (B, A, 2) before the softmax, see `direction`.
        anchors: what the residuals refer to.
    """

    class_logits: Float[Tensor, "B A K"]
    box_deltas: Float[Tensor, "B A 7"]
    direction_logits: Float[Tensor, "B A 2"]
    anchors: Anchors
