"""The simulator as datasets: pairs of sweeps for pretraining, labelled sweeps for finetuning and evaluation."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from equilidar.data.simulator.annotate import TOO_HARD, ObjectTable
from equilidar.data.simulator.classes import BOXED, NEIGHBOURS, SEMANTICS
from equilidar.data.simulator.sensor import Sensor
from equilidar.data.simulator.sequences import SimulatedSequences
from equilidar.data.simulator.sweep import SimulatedSweep, simulate_sweep
from equilidar.structures import Boxes3D, LabelledSweep, ObjectAnnotations, Sweep, SweepPair


class SimulatedPairs(SimulatedSequences):
    """Consecutive sweeps with poses; with exact flow only if asked for.

    Args:
        sensor: a sensor, or the arguments of `make_sensor`.
        num_sequences: number of scenes.
        frames_per_sequence: pairs of each.
        seed: of the whole set.
        exact_flow: give the true scene flow of each source point. It comes from labels: `from_labels` is then true.
        options: `rolling_shutter`, `frame_step`, `gap`, `scene`, `cache_scenes` as in the class that this one extends.
    """

    def __init__(
        self,
        sensor: Sensor | Mapping[str, Any] | None = None,
        num_sequences: int = 8,
        frames_per_sequence: int = 8,
        seed: int = 0,
        *,
        exact_flow: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(sensor, num_sequences, frames_per_sequence, seed, **options)
        self.exact_flow = self.from_labels = exact_flow
        self.keys = [f"{self._key(i)}->{self._key(i, self.gap)}" for i in range(len(self))]

    def __getitem__(self, index: int) -> SweepPair:
        """Return pair `index`."""
        return self.pair_from(index, self.simulate(index), exact_flow=self.exact_flow)

    def pair_from(self, index: int, source: SimulatedSweep, *, exact_flow: bool) -> SweepPair:
        """Return pair `index`, whose source is simulated already."""
        target = self.simulate(index, self.gap)
        return SweepPair(
            source=self._sweep(source, self._key(index)),
            target=self._sweep(target, self._key(index, self.gap)),
            target_T_source=torch.from_numpy(source.target_T_sensor),
            flow=torch.from_numpy(source.flow) if exact_flow else None,
            flow_valid=torch.ones(len(source.flow), dtype=torch.bool) if exact_flow else None,
        )

    @property
    def sweep_gap(self) -> int:
        return self.gap if self.frame_step == 1 else 1

    @property
    def sweep_keys(self) -> list[str]:
        """Key of each sweep, in order."""
        return [self._key_of(*place) for run in self._runs() for place in run]

    def sweep_runs(self) -> list[range]:
        """Return the indices of each run of sweeps: every turn of a scene or, where turns are left out, a pair."""
        bounds = [0, *itertools.accumulate(len(run) for run in self._runs())]
        return [range(start, stop) for start, stop in itertools.pairwise(bounds)]

    def sweep(self, index: int) -> Sweep:
        """Return sweep `index` of all runs, in order."""
        runs = self._runs()
        run, place = divmod(index, len(runs[0]))
        sequence, frame = runs[run][place]
        return self._sweep(simulate_sweep(self.scene(sequence), self.sensor, frame), self._key_of(sequence, frame))

    def is_target(self, index: int) -> bool:
        return True

    def _runs(self) -> list[list[tuple[int, int]]]:
        """Return sequence and frame of each run's sweeps; all runs are of one length."""
        if self.frame_step == 1:
            frames = range(self.frames_per_sequence + self.gap)
            return [[(sequence, frame) for frame in frames] for sequence in range(self.num_sequences)]
        first = [self.locate(index) for index in range(len(self))]
        return [[(sequence, frame), (sequence, frame + self.gap)] for sequence, frame in first]


class SimulatedSweeps(SimulatedSequences):
    """Labelled sweeps.

    Args:
        sensor: a sensor, or the arguments of `make_sensor`.
        num_sequences: number of scenes.
        frames_per_sequence: sweeps of each.
        seed: of the whole set.
        class_names: the classes that are boxed, of Car, Van, Truck, Pedestrian and Cyclist.
        min_points: boxes with fewer points are not given for training.
        region: x0, y0, x1, y1 in metres: objects whose centre lies outside are left out, as if they were not there.
        options: `rolling_shutter`, `frame_step`, `scene`, `cache_scenes` as in the class that this one extends.

    Raises:
        ValueError: an unknown class, or a region that is empty.
    """

    def __init__(
        self,
        sensor: Sensor | Mapping[str, Any] | None = None,
        num_sequences: int = 8,
        frames_per_sequence: int = 8,
        seed: int = 0,
        *,
        class_names: Sequence[str] = ("Car", "Pedestrian", "Cyclist"),
        min_points: int = 5,
        region: Sequence[float | int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(sensor, num_sequences, frames_per_sequence, seed, **options)
        for name in class_names:
            if name not in BOXED:
                raise ValueError(f"simulator: class_names has {name!r}; boxes exist for {', '.join(BOXED)}")
        if region is not None and not (len(region) == 4 and region[0] < region[2] and region[1] < region[3]):
            raise ValueError(f"simulator: region must be [x0, y0, x1, y1] with x0 < x1 and y0 < y1, got {region}")
        self.class_names = tuple(class_names)
        self.min_points = min_points
        self.region = None if region is None else tuple(float(v) for v in region)
        self.keys = [self._key(i) for i in range(len(self))]

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return sweep `index` with the boxes to learn from."""
        simulated = self.simulate(index)
        annotations = self._annotations(simulated, neighbours=False)
        boxes = annotations.boxes.select(annotations.num_points >= self.min_points)
        return LabelledSweep(self._sweep(simulated, self._key(index)), boxes, self._obstacles(simulated))

    def difficulties(self, index: int) -> Int64[torch.Tensor, " M"]:
        """Return 0 easy, 1 moderate, 2 hard, 3 too hard to count, for each box of sweep `index`."""
        annotations = self._annotations(self.simulate(index), neighbours=False)
        return annotations.difficulty[annotations.num_points >= self.min_points]

    def annotations(self, index: int) -> ObjectAnnotations:
        """Return what an evaluator needs: all objects with at least one point.

        Objects of a neighbouring class (vans beside cars, as in KITTI) are given as the class that they are like,
        with difficulty 3: they may be found and need not be.
        """
        return self._annotations(self.simulate(index), neighbours=True)

    def _obstacles(self, simulated: SimulatedSweep) -> Boxes3D:
        """Return the objects of classes that are not learned."""
        objects = simulated.objects
        others = [SEMANTICS.index(name) for name in BOXED if name not in self.class_names]
        return _boxes(objects, np.isin(objects.semantic, others))

    def _annotations(self, simulated: SimulatedSweep, *, neighbours: bool) -> ObjectAnnotations:
        objects = simulated.objects
        lookup = np.full(len(SEMANTICS), -1, dtype=np.int64)
        for index, name in enumerate(self.class_names):
            lookup[SEMANTICS.index(name)] = index
        own = lookup[objects.semantic] >= 0
        if neighbours:
            for other, like in NEIGHBOURS.items():
                if like in self.class_names and other not in self.class_names:
                    lookup[SEMANTICS.index(other)] = self.class_names.index(like)
        kept = (lookup[objects.semantic] >= 0) & (objects.num_points > 0)
        if self.region is not None:
            x0, y0, x1, y1 = self.region
            x, y = objects.center[:, 0], objects.center[:, 1]
            kept &= (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        boxes = _boxes(
            objects,
            kept,
            label=torch.from_numpy(lookup[objects.semantic[kept]]),
            velocity=torch.from_numpy(objects.velocity[kept]).float(),
            track=torch.from_numpy(objects.track[kept]),
        )
        difficulty = np.where(own, objects.difficulty, TOO_HARD)[kept]
        return ObjectAnnotations(
            boxes,
            torch.from_numpy(difficulty),
            torch.from_numpy(objects.num_points[kept]),
            torch.from_numpy(objects.occluded[kept]).float(),
        )


def _boxes(objects: ObjectTable, kept: NDArray[np.bool_], **more: Tensor) -> Boxes3D:
    pose = (torch.from_numpy(values[kept]).float() for values in (objects.center, objects.size, objects.yaw))
    return Boxes3D.make(*pose, **more)
