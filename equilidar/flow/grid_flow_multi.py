"""grid_flow from more than two sweeps: those before the source and after the target tell the same motion again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from equilidar.flow.grid_flow import FurtherSweeps, GridFlow
from equilidar.structures import Affine3, FlowField, PointCloudBatch, Sweep, SweepPairBatch


@runtime_checkable
class SweepSource(Protocol):
    """A dataset that gives its sweeps one by one, as the readers of sequences do.

    Attributes:
        sweep_keys: "dataset/sequence/frame" of each sweep, in index order.
    """

    @property
    def sweep_keys(self) -> Sequence[str]: ...

    def sweep(self, index: int, /) -> Sweep: ...

    def sweep_runs(self) -> Sequence[range]: ...


@dataclass(frozen=True)
class GridFlowMulti:
    """`GridFlow`, judged by further sweeps as well: objects keep their velocity for a few tenths of a second.

    A batch holds two sweeps; the others are read from the dataset that it came from (`bound_to`) and brought into the
    target's frame by their poses. They lie as far apart as source and target: before the source, after the target, and
    so on in turn. Where a sequence begins or ends there are fewer, down to the pair alone.

    Attributes:
        num_sweeps: how many at most, source and target included.
        pair: the estimator and its settings.
        sweeps: where further sweeps are read from.
    """

    num_sweeps: int = 5
    pair: GridFlow = field(default_factory=GridFlow)
    sweeps: SweepSource | None = field(default=None, compare=False, repr=False)
    name: ClassVar[str] = "grid_flow_multi"
    from_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_sweeps < 2:
            raise ValueError(f"flow.num_sweeps must be at least 2 (source and target), got {self.num_sweeps}")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"num_sweeps": self.num_sweeps, **asdict(self.pair)}

    def bound_to(self, dataset: object) -> "GridFlowMulti":
        """Return the estimator for pairs of a dataset.

        Raises:
            ValueError: the dataset does not give its sweeps one by one.
        """
        if not isinstance(dataset, SweepSource):
            raise ValueError(
                f"flow=grid_flow_multi needs a dataset that gives single sweeps (sweep_keys, sweep, sweep_runs), and "
                f"{type(dataset).__name__} does not; use flow=grid_flow"
            )
        return replace(self, sweeps=dataset)

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the flow of the source points.

        Raises:
            ValueError: no dataset was given, a pair is not of it, or a sweep has no pose.
        """
        if self.sweeps is None:
            raise ValueError("flow=grid_flow_multi reads further sweeps: give it a dataset by bound_to(dataset)")
        place = {key: index for index, key in enumerate(self.sweeps.sweep_keys)}
        loaded = [self._further(key, place) for key in batch.keys]
        further = []
        for turn in range(self.num_sweeps - 2):
            sweeps = [own[turn] if turn < len(own) else (torch.zeros(0, 3), 0.0) for own in loaded]
            if any(len(xyz) for xyz, _ in sweeps):
                clouds = [_cloud(xyz) for xyz, _ in sweeps]
                seconds = torch.tensor([time for _, time in sweeps]).to(batch.gap)
                points = PointCloudBatch.collate(clouds).to(batch.gap.device)
                further.append(FurtherSweeps(points, seconds / batch.gap))
        return self.pair.estimate(batch, further)

    def _further(self, key: str, place: Mapping[str, int]) -> list[tuple[Float[Tensor, "N 3"], float]]:
        """Return for a pair the points of further sweeps in the target's frame, and seconds from the source to each."""
        sweeps = self.sweeps
        assert sweeps is not None
        ends = key.split("->")
        if len(ends) != 2 or any(end not in place for end in ends):
            raise ValueError(f"flow=grid_flow_multi: pair {key} is not of the dataset that the estimator was bound to")
        first, last = (place[end] for end in ends)
        run = next(run for run in sweeps.sweep_runs() if first in run)
        step = last - first
        turns = range(1, self.num_sweeps)
        wanted = [index for turn in turns for index in (first - turn * step, last + turn * step) if index in run]
        chosen = wanted[: self.num_sweeps - 2]
        if not chosen:
            return []
        source, target = sweeps.sweep(first), sweeps.sweep(last)
        return [(_brought(sweep, target), sweep.timestamp - source.timestamp) for sweep in map(sweeps.sweep, chosen)]


def _brought(sweep: Sweep, target: Sweep) -> Float[Tensor, "N 3"]:
    """Return a sweep's points in the target's frame."""
    if sweep.world_T_sensor is None or target.world_T_sensor is None:
        raise ValueError(f"flow=grid_flow_multi: {sweep.key} and {target.key} need poses; use flow=grid_flow")
    motion = torch.linalg.inv(target.world_T_sensor) @ sweep.world_T_sensor
    return Affine3.from_matrix(motion[None].float()).apply(sweep.xyz, torch.tensor([0, len(sweep.xyz)]))


def _cloud(xyz: Float[Tensor, "N 3"]) -> PointCloudBatch:
    return PointCloudBatch(xyz, xyz.new_zeros(len(xyz), 0), torch.tensor([0, len(xyz)]), ())
