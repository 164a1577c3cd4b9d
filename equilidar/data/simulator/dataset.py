"""The simulator as datasets: pairs of sweeps for pretraining, labelled sweeps for finetuning and evaluation."""

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from equilidar.data.listing import content_hash
from equilidar.data.simulator.annotate import TOO_HARD
from equilidar.data.simulator.classes import BOXED, NEIGHBOURS, SEMANTICS
from equilidar.data.simulator.populate import SceneOptions, make_scene
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.sensor import Sensor, make_sensor
from equilidar.data.simulator.sweep import SimulatedSweep, simulate_sweep
from equilidar.data.simulator.traffic import HORIZON
from equilidar.structures import Boxes3D, LabelledSweep, ObjectAnnotations, SensorContract, Sweep, SweepPair

# Bump whenever the same arguments give other sweeps.
VERSION = 1


class _Sequences:
    """Sweeps by index; scenes are built when first needed and the last few are kept.

    Args:
        sensor: a sensor, or the arguments of `make_sensor`.
        num_sequences: number of scenes.
        frames_per_sequence: sweeps (or pairs) of each.
        seed: of the whole set: another seed gives other scenes, so that splits are told apart by their seeds.
        frame_step: turns between one sweep (or pair) and the next one; more than 1 shows more of each scene.
        gap: turns from a sweep to its target.
        rolling_shutter: measure columns one after the other; None leaves it to the sensor.
        scene: how full scenes are, `SceneOptions` or its arguments.
        cache_scenes: number of scenes that each process keeps (about 6 MB each).
    """

    def __init__(
        self,
        sensor: Sensor | Mapping[str, Any] | None = None,
        num_sequences: int = 8,
        frames_per_sequence: int = 8,
        seed: int = 0,
        *,
        frame_step: int = 1,
        gap: int = 1,
        rolling_shutter: bool | None = None,
        scene: SceneOptions | Mapping[str, Any] | None = None,
        cache_scenes: int = 64,
    ) -> None:
        for name, value in (("num_sequences", num_sequences), ("frames_per_sequence", frames_per_sequence),
                            ("frame_step", frame_step), ("gap", gap), ("cache_scenes", cache_scenes)):  # fmt: skip
            if value < 1:
                raise ValueError(f"simulator: {name} must be at least 1, got {value}")
        if seed < 0:
            raise ValueError(f"simulator: seed must not be negative, got {seed}")
        self.sensor = sensor if isinstance(sensor, Sensor) else make_sensor(**(sensor or {}))
        if rolling_shutter is not None:
            self.sensor = replace(self.sensor, rolling_shutter=rolling_shutter)
        self.options = scene if isinstance(scene, SceneOptions) else SceneOptions(**(scene or {}))
        last = ((frames_per_sequence - 1) * frame_step + gap) * self.sensor.period
        if last > HORIZON - self.sensor.period:
            raise ValueError(
                f"simulator: {frames_per_sequence} frames, {frame_step} turns apart, last until {last:.1f} s, a scene "
                f"only {HORIZON - self.sensor.period:.1f} s; take more sequences with fewer frames"
            )
        self.seed, self.gap = seed, gap
        self.num_sequences, self.frames_per_sequence, self.frame_step = num_sequences, frames_per_sequence, frame_step
        self.contract: SensorContract = self.sensor.contract
        self.name = f"simulator-{seed}"
        self._cache_scenes = cache_scenes
        self._scenes: OrderedDict[int, Scene] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        # Workers build their own scenes: they are cheaper to build than to send.
        return {**self.__dict__, "_scenes": OrderedDict()}

    def __len__(self) -> int:
        return self.num_sequences * self.frames_per_sequence

    def locate(self, index: int) -> tuple[int, int]:
        """Return the sequence and the frame of an index.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} items, no item {index}")
        sequence, place = divmod(index, self.frames_per_sequence)
        return sequence, place * self.frame_step

    def scene(self, sequence: int) -> Scene:
        """Return a scene, building it if it is not among the last ones used."""
        if sequence in self._scenes:
            self._scenes.move_to_end(sequence)
            return self._scenes[sequence]
        scene = make_scene(self.seed, sequence, self.options)
        self._scenes[sequence] = scene
        if len(self._scenes) > self._cache_scenes:
            self._scenes.popitem(last=False)
        return scene

    def simulate(self, index: int, ahead: int = 0) -> SimulatedSweep:
        """Return all that is known of sweep `index`, or of the one `ahead` turns later."""
        sequence, frame = self.locate(index)
        return simulate_sweep(self.scene(sequence), self.sensor, frame + ahead, self.gap if ahead == 0 else 1)

    def _key(self, index: int, ahead: int = 0) -> str:
        sequence, frame = self.locate(index)
        return self._key_of(sequence, frame + ahead)

    def _key_of(self, sequence: int, frame: int) -> str:
        return f"{self.name}/{sequence:04d}/{frame:04d}"

    def _sweep(self, simulated: SimulatedSweep, key: str) -> Sweep:
        columns = [simulated.intensity, simulated.time] if self.sensor.rolling_shutter else [simulated.intensity]
        return Sweep(
            xyz=torch.from_numpy(simulated.xyz),
            features=torch.from_numpy(np.stack(columns, 1)),
            contract=self.contract,
            key=key,
            timestamp=simulated.timestamp,
            world_T_sensor=torch.from_numpy(simulated.world_T_sensor),
        )

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data: the arguments that made it."""
        made = {
            "version": VERSION,
            "sensor": asdict(self.sensor),
            "scene": asdict(self.options),
            "seed": self.seed,
            "num_sequences": self.num_sequences,
            "frames_per_sequence": self.frames_per_sequence,
            "frame_step": self.frame_step,
            "gap": self.gap,
        }
        return {"name": self.name, "num_samples": len(self), "hash": content_hash(made), **made}


class SimulatedPairs(_Sequences):
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
        source, target = self.simulate(index), self.simulate(index, self.gap)
        return SweepPair(
            source=self._sweep(source, self._key(index)),
            target=self._sweep(target, self._key(index, self.gap)),
            target_T_source=torch.from_numpy(source.target_T_sensor),
            flow=torch.from_numpy(source.flow) if self.exact_flow else None,
            flow_valid=torch.ones(len(source.flow), dtype=torch.bool) if self.exact_flow else None,
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


class SimulatedSweeps(_Sequences):
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
        kept = np.isin(objects.semantic, others)
        return Boxes3D.make(
            torch.from_numpy(objects.center[kept]).float(),
            torch.from_numpy(objects.size[kept]).float(),
            torch.from_numpy(objects.yaw[kept]).float(),
        )

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
        boxes = Boxes3D.make(
            torch.from_numpy(objects.center[kept]).float(),
            torch.from_numpy(objects.size[kept]).float(),
            torch.from_numpy(objects.yaw[kept]).float(),
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
