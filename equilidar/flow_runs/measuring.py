"""Measures flow estimators against the truth, by Argoverse 2's definitions."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float

from equilidar.data.labelled_pairs import LabelledPairs
from equilidar.evaluation.scene_flow import FlowExample, SceneFlowSums
from equilidar.flow import FlowEstimator, RigidFlow
from equilidar.flow_runs.instances import InstanceErrors
from equilidar.structures import FlowField, LabelledPair, SweepPair, SweepPairBatch

_CLOSE = 35.0  # metres, as av2's annotations have it
_DYNAMIC_SPEED = 0.5
_PARTS = ("Foreground/Dynamic", "Foreground/Static", "Background/Static")


@dataclass(frozen=True)
class EvaluatedPoints:
    """Which source points count.

    Argoverse 2's benchmark counts what does not lie on the ground within 50 m: the defaults.

    Attributes:
        extent: largest |x| and |y|, metres.
        ground: count points on the ground as well. Where a dataset does not tell them, they are counted.
    """

    extent: float = 50.0
    ground: bool = False

    def __post_init__(self) -> None:
        if not self.extent > 0:
            raise ValueError(f"points.extent must be positive, got {self.extent}")

    def __call__(self, labelled: LabelledPair) -> Bool[np.ndarray, " N"]:
        """Return a mask over the source points; those of unknown flow are left out as well."""
        pair = labelled.pair
        assert pair.flow is not None and pair.flow_valid is not None
        kept = pair.flow_valid & (pair.source.xyz[:, :2].abs() <= self.extent).all(1)
        if labelled.ground is not None and not self.ground:
            kept &= ~labelled.ground
        return kept.numpy()


@dataclass(slots=True)
class Measured:
    """What an estimator did.

    Attributes:
        sums: of the official figures.
        seconds: of each pair.
        moving: number of points that count and move, of each pair.
        num_points: that count.
        num_known: of these, for how many the estimator has an answer (`FlowField.valid`).
        instances: errors by object.
    """

    sums: SceneFlowSums = field(default_factory=SceneFlowSums)
    seconds: list[float] = field(default_factory=list)
    moving: list[int] = field(default_factory=list)
    num_points: int = 0
    num_known: int = 0
    instances: InstanceErrors = field(default_factory=InstanceErrors)

    def add(self, labelled: LabelledPair, flow: FlowField, counted: Bool[np.ndarray, " N"], seconds: float) -> None:
        """Add what the estimator gave for a pair."""
        self.sums.add(example_of(labelled, flow.flow, counted))
        self.instances.add(labelled, flow.flow, counted)
        self.seconds.append(seconds)
        self.moving.append(int((labelled.dynamic.numpy() & counted).sum()))
        self.num_points += int(counted.sum())
        self.num_known += int(flow.valid.numpy()[counted].sum())

    def summary(self) -> dict[str, float]:
        """Return the figures of the tool's JSON file, metres and seconds.

        Accuracies are means over the same three parts as the three-way error, so that background does not hide movers.
        """
        figures = self.sums.figures()
        totals, bucketed = figures["totals"], figures["bucketed"]
        return {
            "epe_three_way": totals["EPE 3-Way Average"],
            "epe_foreground_dynamic": totals["EPE/Foreground/Dynamic"],
            "epe_foreground_static": totals["EPE/Foreground/Static"],
            "epe_background_static": totals["EPE/Background/Static"],
            "bucket_dynamic": float("nan") if bucketed is None else bucketed["all"]["mean"]["dynamic"],
            "accuracy_strict": sum(totals[f"Accuracy Strict/{part}"] for part in _PARTS) / len(_PARTS),
            "accuracy_relaxed": sum(totals[f"Accuracy Relax/{part}"] for part in _PARTS) / len(_PARTS),
            "seconds_per_pair": float(np.mean(self.seconds)),
        }


def measure(
    estimators: Mapping[str, FlowEstimator],
    pairs: LabelledPairs,
    indices: Sequence[int],
    points: EvaluatedPoints,
    device: torch.device | str = "cpu",
) -> dict[str, Measured]:
    """Run estimators over pairs, in turn on each pair, and compare with the truth.

    They see sweeps, ego motion and gap alone; only one that says it is from labels sees the true flow. Where one has no
    answer, the flow that it gives all the same is what is measured. Each sees the first pair once before the clock
    runs, which loads and compiles.

    Args:
        estimators: by the name they are reported under.
        pairs: with truth.
        indices: of the pairs.
        points: which points count.
        device: that the estimators run on.

    Raises:
        ValueError: no pair, or none of their points counts.
    """
    if not indices:
        raise ValueError("no pair to evaluate")
    measured = {name: Measured() for name in estimators}
    for index in indices:
        labelled = pairs[index]
        counted = points(labelled)
        for name, estimator in estimators.items():
            batch = SweepPairBatch.collate([seen_by(estimator, labelled)]).to(device)
            if not measured[name].seconds:
                estimator(batch)
            field, seconds = _timed(estimator, batch)
            measured[name].add(labelled, field, counted, seconds)
    if not any(one.num_points for one in measured.values()):
        raise ValueError(
            f"none of the {len(indices)} pairs has a point that counts; set points.extent or points.ground"
        )
    return measured


def example_of(
    labelled: LabelledPair, estimate: Float[torch.Tensor, "N 3"], counted: Bool[np.ndarray, " N"]
) -> FlowExample:
    """Return the points that count as the official evaluator takes them."""
    pair = labelled.pair
    assert pair.flow is not None
    at_rest = RigidFlow()(SweepPairBatch.collate([pair])).flow
    threshold = _DYNAMIC_SPEED * abs(pair.target.timestamp - pair.source.timestamp)
    columns = {
        "category": labelled.category.numpy(),
        "is_close": (pair.source.xyz[:, :2].abs() <= _CLOSE).all(1).numpy(),
        "is_dynamic": labelled.dynamic.numpy(),
        "is_valid": np.ones(len(counted), dtype=bool),
        "flow": pair.flow.double().numpy(),
        "rest": labelled.rest.double().numpy(),
        "estimate": estimate.double().numpy(),
        "estimated_dynamic": ((estimate - at_rest).norm(dim=1) > threshold).numpy(),
    }
    return FlowExample(labelled.key, **{name: column[counted] for name, column in columns.items()})


def seen_by(estimator: FlowEstimator, labelled: LabelledPair) -> SweepPair:
    """Return the pair without its true flow, unless the estimator says that it is from labels."""
    return labelled.pair if estimator.from_labels else replace(labelled.pair, flow=None, flow_valid=None)


def _timed(estimator: FlowEstimator, batch: SweepPairBatch) -> tuple[FlowField, float]:
    begin = time.perf_counter()
    flow = estimator(batch)
    if flow.flow.is_cuda:
        torch.cuda.synchronize(flow.flow.device)
    return flow.to("cpu"), time.perf_counter() - begin
