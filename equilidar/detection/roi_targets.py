"""Which proposals the second stage learns from, and what it should say of each.

As OpenPCDet's ProposalTargetLayer (commit 8cacccec, SAMPLE_ROI_BY_EACH_CLASS, CLS_SCORE_TYPE: roi_iou): a proposal is
compared with the objects of its own class by the IoU of volumes; foreground and background are drawn in a fixed
proportion, hard background (some overlap) before easy. The score to be learned is a function of that IoU, so that
detections are ranked by how well they fit (Jiang et al., IoU-Net, ECCV 2018).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from equilidar.detection.proposals import Proposals
from equilidar.ops.rotated_iou import iou_3d_pairs
from equilidar.structures import Boxes3D
from equilidar.structures.moving import Movable
from equilidar.structures.seeding import uniform

STREAM_ROIS = 400


@dataclass(slots=True)
class RoITargets(Movable):
    """What the second stage should say of R sampled proposals of each sweep.

    Attributes:
        rois: (B, R, 7) the proposals.
        boxes: (B, R, 7) the object that each fits best; the proposal itself where it is not foreground.
        foreground: (B, R) whether it overlaps that object enough to be moved onto it.
        scores: (B, R) what should be said of its IoU, 0..1; -1 where a sweep has no proposal at all: ignored.
    """

    rois: Float[Tensor, "B R 7"]
    boxes: Float[Tensor, "B R 7"]
    foreground: Bool[Tensor, "B R"]
    scores: Float[Tensor, "B R"]


@dataclass(frozen=True)
class RoISampler:
    """Draws proposals and assigns targets; defaults as OpenPCDet's cfgs/kitti_models/{voxel_rcnn_car,pv_rcnn}.yaml.

    Attributes:
        num: proposals that are drawn in each sweep (ROI_PER_IMAGE).
        foreground_share: of these, at most, are foreground (FG_RATIO).
        hard_share: of the background, at most, overlaps some object (HARD_BG_RATIO).
        foreground: IoU above which a proposal is moved onto the object (REG_FG_THRESH).
        hard: IoU from which on background is hard (CLS_BG_THRESH_LO).
        score_low, score_high: IoU at which the score to be learned begins to rise from 0 and reaches 1 (CLS_BG_THRESH,
            CLS_FG_THRESH).

    Raises:
        ValueError: a number is out of its range.
    """

    num: int = 128
    foreground_share: float = 0.5
    hard_share: float = 0.8
    foreground: float = 0.55
    hard: float = 0.1
    score_low: float = 0.25
    score_high: float = 0.75

    def __post_init__(self) -> None:
        if self.num < 1 or not 0 <= self.foreground_share <= 1 or not 0 <= self.hard_share <= 1:
            raise ValueError(
                "roi sampler: num must be at least 1 and the shares within 0..1, got "
                f"{self.num}, {self.foreground_share} and {self.hard_share}"
            )
        if not 0 < self.hard < self.foreground < 1 or not 0 <= self.score_low < self.score_high <= 1:
            raise ValueError(
                "roi sampler: needs 0 < hard < foreground < 1 and 0 <= score_low < score_high <= 1, got "
                f"{self.hard}, {self.foreground}, {self.score_low}, {self.score_high}"
            )

    @torch.no_grad()
    def __call__(self, proposals: Proposals, boxes: Boxes3D, seeds: Int64[Tensor, " B"]) -> RoITargets:
        """Draw and assign.

        Args:
            proposals: of B sweeps.
            boxes: with `label` an index into the detector's classes; boxes with another label (-1, say) match nothing.
            seeds: one for each sweep, from which the draw follows together with the proposals.
        """
        iou, match = best_boxes(proposals, boxes)
        draws = uniform(seeds, STREAM_ROIS, iou.shape[1] + self.num)
        order, numbers = draws.split([iou.shape[1], self.num], 1)
        rows = self.draw(iou, proposals.valid, order, numbers)
        rois = proposals.boxes.gather(1, rows[..., None].expand(-1, -1, 7))
        iou, match = iou.gather(1, rows), match.gather(1, rows)
        foreground = iou > self.foreground
        # One more row, for those that match nothing.
        table = torch.cat([boxes.as_tensor(), proposals.boxes.new_zeros(1, 7)])
        matched = torch.where(foreground[..., None], table[match], rois)
        scores = ((iou - self.score_low) / (self.score_high - self.score_low)).clamp(0, 1)
        return RoITargets(rois, matched, foreground, torch.where(proposals.valid.gather(1, rows), scores, -1.0))

    def draw(
        self,
        iou: Float[Tensor, "B P"],
        valid: Bool[Tensor, "B P"],
        order: Float[Tensor, "B P"],
        numbers: Float[Tensor, "B R"],
    ) -> Int64[Tensor, "B R"]:
        """Return the rows drawn: foreground, hard and easy background, in this order.

        Foreground is drawn without repetition as long as there is background beside it, background with repetition.

        Args:
            iou: of each proposal to the object it fits best.
            valid: which proposals there are.
            order: random numbers by which foreground is ranked.
            numbers: random numbers in [0, 1), one for each draw.
        """
        foreground = valid & (iou >= min(self.foreground, self.score_high))
        easy, hard = valid & (iou < self.hard), valid & (iou >= self.hard) & (iou < self.foreground)
        found, found_easy, found_hard = (mask.sum(1, keepdim=True) for mask in (foreground, easy, hard))
        has_background = found_easy + found_hard > 0
        num_fg = torch.where(has_background, found.clamp_max(round(self.foreground_share * self.num)), self.num)
        num_fg = torch.where(found > 0, num_fg, 0)
        num_background = self.num - num_fg
        # In float64, as the product is cut off: 0.8 * 90 must be 72 and not a little less.
        share = (num_background.double() * self.hard_share).long()
        num_hard = torch.where(found_easy > 0, torch.minimum(share, found_hard), num_background)
        num_hard = torch.where(found_hard > 0, num_hard, 0)

        slot = torch.arange(self.num, device=iou.device).expand(len(iou), -1)
        by_order = torch.where(foreground, order, 2.0).argsort(dim=1, stable=True)
        ranked = torch.where(has_background, slot, _pick(numbers, found))
        from_fg = by_order.gather(1, ranked.clamp_max(by_order.shape[1] - 1))
        from_hard = _rows_first(hard).gather(1, _pick(numbers, found_hard))
        from_easy = _rows_first(easy).gather(1, _pick(numbers, found_easy))
        return torch.where(slot < num_fg, from_fg, torch.where(slot < num_fg + num_hard, from_hard, from_easy))


def best_boxes(proposals: Proposals, boxes: Boxes3D) -> tuple[Float[Tensor, "B P"], Int64[Tensor, "B P"]]:
    """Return for each proposal the highest IoU of volumes to a box of its class, and the row of that box.

    The first of equal ones; IoU 0 and row `len(boxes)` where none overlaps.
    """
    item = boxes.batch_index
    rois = proposals.boxes[item]  # (M, P, 7): the proposals of each box's sweep
    pairs = iou_3d_pairs(rois.flatten(0, 1), boxes.as_tensor().repeat_interleave(rois.shape[1], 0))
    comparable = proposals.valid[item] & (proposals.labels[item] == boxes.label[:, None])
    iou = torch.where(comparable, pairs.view(comparable.shape), 0.0)
    where = item[:, None].expand_as(iou)
    best = torch.zeros_like(proposals.boxes[..., 0]).scatter_reduce(0, where, iou, "amax")
    row = torch.arange(len(boxes), device=item.device)[:, None]
    candidates = torch.where((iou == best[item]) & (iou > 0), row, len(boxes))
    none = torch.full_like(proposals.labels, len(boxes))
    return best, none.scatter_reduce(0, where, candidates, "amin")


def _pick(numbers: Tensor, count: Tensor) -> Tensor:
    """Return random places below `count`, 0 where that is 0."""
    return torch.minimum((numbers * count).long(), (count - 1).clamp_min(0))


def _rows_first(mask: Tensor) -> Tensor:
    """Return the columns of each row, those where `mask` is true first, in order."""
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)
