"""The official KITTI protocol from overlaps to average precision, for any data set that states what is to be ignored.

Two passes (Geiger et al., "Are we ready for autonomous driving?", CVPR 2012, and its development kit):
the first lets each ground truth, in file order, take the free candidate of highest score, and samples at most 41 score
thresholds from the scores of the true positives; the second repeats the matching at each threshold, where each ground
truth takes the free candidate that overlaps most. Ties go to the detection that comes first.
With fewer than 41 ground truths there are fewer than 41 thresholds and the rest of the curve is 0: even a perfect
detector stays below 100, officially.

Legend: G ground truths, D detections, P pairs, T thresholds; G and D run over all sweeps of a set.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8

from equilidar.compiled import compiled
from equilidar.evaluation.overlaps import Overlaps

NUM_RECALL_POSITIONS = 41

# States of a ground truth or a detection for one class and difficulty.
COUNTS = 0
IGNORED = 1
OTHER_CLASS = -1


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision over recall of one class at one difficulty.

    Attributes:
        precision: (41,) interpolated precision at recall i / 40, 0..1.
        similarity: (41,) the same weighted by the similarity of orientation, None where that was not asked for.
        recall: (T,) recall at each score threshold, falling thresholds.
        num_ground_truth: how many objects there were to be found.
        num_found: how many of them were found at any score.
    """

    precision: Float64[np.ndarray, " 41"]
    similarity: Float64[np.ndarray, " 41"] | None
    recall: Float64[np.ndarray, " T"]
    num_ground_truth: int
    num_found: int

    @property
    def found_fraction(self) -> float:
        """Recall at the lowest score, 0..1; 0 where there is nothing to be found."""
        return self.num_found / max(self.num_ground_truth, 1)


def ap_r11(curve: Float64[np.ndarray, " 41"]) -> float:
    """Return the average precision in percent at recall 0, 0.1, ... 1 (official until 2019)."""
    return 100 * float(curve[::4].mean())


def ap_r40(curve: Float64[np.ndarray, " 41"]) -> float:
    """Return the average precision in percent at recall 1/40, 2/40, ... 1 (official since 2019)."""
    return 100 * float(curve[1:].mean())


def precision_curve(
    overlaps: Overlaps,
    minimum_overlap: float,
    ground_truth_state: Int8[np.ndarray, " G"],
    detection_state: Int8[np.ndarray, " D"],
    scores: Float64[np.ndarray, " D"],
    *,
    excused: Bool[np.ndarray, " D"] | None = None,
    similarity: Float64[np.ndarray, " P"] | None = None,
) -> Curve:
    """Match detections with ground truth and sample the curve of precision over recall.

    Args:
        overlaps: of the pairs of the same sweep.
        minimum_overlap: a candidate overlaps by more than this.
        ground_truth_state: COUNTS, IGNORED (may absorb a detection, need not be found) or OTHER_CLASS.
        detection_state: COUNTS, IGNORED (may take a ground truth, which then is neither found nor missed; is no false
            positive) or OTHER_CLASS.
        scores: confidence, higher is surer.
        excused: detections that are no false positives where they match nothing (in areas that nobody labelled).
        similarity: 0..1 of the orientations of each pair; None leaves it out of the curve.
    """
    relevant = (
        (overlaps.value > minimum_overlap)
        & (ground_truth_state[overlaps.ground_truth] != OTHER_CLASS)
        & (detection_state[overlaps.detection] != OTHER_CLASS)
    )
    candidates = overlaps.select(relevant)
    first = np.searchsorted(candidates.ground_truth, np.arange(len(ground_truth_state) + 1))
    matching = (first, candidates.detection, ground_truth_state, detection_state, scores)
    num_ground_truth = int((ground_truth_state == COUNTS).sum())
    found_scores = _scores_of_true_positives(*matching)
    thresholds = _sample_thresholds(np.sort(found_scores)[::-1], num_ground_truth)
    similar = np.zeros(len(candidates.value)) if similarity is None else similarity[relevant]
    may_be_false = (detection_state == COUNTS) & (True if excused is None else ~excused)
    true, false, missed, weight = _count(*matching, candidates.value, similar, may_be_false, thresholds)
    return Curve(
        _interpolate(true, true + false),
        None if similarity is None else _interpolate(weight, true + false),
        true / np.maximum(true + missed, 1),
        num_ground_truth,
        len(found_scores),
    )


def _interpolate(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the best ratio at this threshold or a lower one; 0 past the last threshold."""
    ratio = np.zeros(NUM_RECALL_POSITIONS)
    ratio[: len(numerator)] = numerator / np.maximum(denominator, 1)
    return np.maximum.accumulate(ratio[::-1])[::-1]


def _sample_thresholds(falling_scores: np.ndarray, num_ground_truth: int) -> np.ndarray:
    """Return the scores at which recall comes nearest to 0, 1/40, 2/40, ...; summed as the official tool sums."""
    thresholds: list[float] = []
    wanted = 0.0
    last = len(falling_scores) - 1
    for i, score in enumerate(falling_scores):
        recall, next_recall = (i + 1) / num_ground_truth, (i + 2) / num_ground_truth
        if i < last and next_recall - wanted < wanted - recall:
            continue
        thresholds.append(float(score))
        wanted += 1.0 / (NUM_RECALL_POSITIONS - 1.0)
    return np.array(thresholds[:NUM_RECALL_POSITIONS])


@compiled
def _scores_of_true_positives(first, candidate, ground_truth_state, detection_state, scores):
    taken = np.zeros(len(scores), np.bool_)
    found = np.empty(len(ground_truth_state))
    num_found = 0
    for g in range(len(ground_truth_state)):
        best = -1
        for p in range(first[g], first[g + 1]):
            d = candidate[p]
            if not taken[d] and (best < 0 or scores[d] > scores[best]):
                best = d
        if best < 0:
            continue
        taken[best] = True
        if ground_truth_state[g] == 0 and detection_state[best] == 0:
            found[num_found] = scores[best]
            num_found += 1
    return found[:num_found]


@compiled
def _count(
    first, candidate, ground_truth_state, detection_state, scores, overlap, similar, may_be_false, thresholds
):  # fmt: skip
    """Return true positives, false positives, misses and summed similarity at each threshold."""
    num = len(thresholds)
    true, false, missed, weight = np.zeros(num), np.zeros(num), np.zeros(num), np.zeros(num)
    for t in range(num):
        taken = np.zeros(len(scores), np.bool_)
        for g in range(len(ground_truth_state)):
            # The widest overlap that counts; failing that, the first ignored candidate.
            best, ignored = -1, -1
            for p in range(first[g], first[g + 1]):
                d = candidate[p]
                if taken[d] or scores[d] < thresholds[t]:
                    continue
                if detection_state[d] == 0:
                    if best < 0 or overlap[p] > overlap[best]:
                        best = p
                elif ignored < 0:
                    ignored = p
            if best >= 0:
                taken[candidate[best]] = True
                if ground_truth_state[g] == 0:
                    true[t] += 1
                    weight[t] += similar[best]
            elif ignored >= 0:
                taken[candidate[ignored]] = True
            elif ground_truth_state[g] == 0:
                missed[t] += 1
        for d in range(len(scores)):
            if may_be_false[d] and not taken[d] and scores[d] >= thresholds[t]:
                false[t] += 1
    return true, false, missed, weight
