"""Simulated sequences: what pairs and labelled sweeps of the simulator have in common."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from equilidar.data.listing import content_hash
from equilidar.data.simulator.populate import SceneOptions, make_scene
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.sensor import Sensor, make_sensor
from equilidar.data.simulator.sweep import SimulatedSweep, simulate_sweep
from equilidar.data.simulator.traffic import HORIZON
from equilidar.structures import SensorContract, Sweep

# Bump whenever the same arguments give other sweeps.
VERSION = 1


class SimulatedSequences:
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
