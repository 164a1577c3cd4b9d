"""Small data sets that tests write for themselves."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equilidar.data.faults import FaultySweepError
from equilidar.structures import Boxes3D, LabelledSweep, SensorContract, Sweep, SweepPair

CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")


def cloud(seed: int, num_points: int = 50) -> np.ndarray:
    """Return (num_points, 4) float32 x, y, z, intensity."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([-20, -20, -2], [20, 20, 2], (num_points, 3))
    return np.concatenate([xyz, rng.uniform(0, 1, (num_points, 1))], 1).astype(np.float32)


def write_bin(path: Path, points: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    points.astype("<f4").tofile(path)
    return path


@dataclass
class FakeSamples:
    """Pairs or labelled sweeps out of nothing; the indices in `faulty` cannot be read."""

    num: int
    kind: str = "pairs"
    faulty: frozenset[int] = field(default_factory=frozenset)
    name: str = "fake"
    class_names: tuple[str, ...] = ("Car",)
    contract: SensorContract = CONTRACT

    @property
    def keys(self) -> list[str]:
        return [f"fake/{i}" for i in range(self.num)]

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> SweepPair | LabelledSweep:
        if index in self.faulty:
            raise FaultySweepError(f"file {index} is broken")
        sweep = self._sweep(index, 0.0)
        if self.kind == "labelled":
            return LabelledSweep(sweep, Boxes3D.empty())
        return SweepPair(sweep, self._sweep(index, 0.1), torch.eye(4, dtype=torch.float64))

    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "num_samples": self.num, "hash": "0"}

    def _sweep(self, index: int, time: float) -> Sweep:
        points = torch.from_numpy(cloud(index, 3 + index % 4))
        return Sweep(points[:, :3], points[:, 3:], CONTRACT, f"fake/{index}", time)
