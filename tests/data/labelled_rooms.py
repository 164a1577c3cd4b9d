"""Labelled sweeps made up for gt sampling: sloping ground with boxes full of points on it."""

import math

import numpy as np
import torch

from equilidar.structures import Boxes3D, LabelledSweep, SensorContract, Sweep

CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")
SIZES = np.array([[4.0, 1.8, 1.6], [0.8, 0.7, 1.8], [1.8, 0.6, 1.7]])


def ground_height(xy: np.ndarray, slope: tuple[float, float], height: float) -> np.ndarray:
    return height + xy @ np.array(slope)


class Rooms:
    """Sweeps over planes of different slope and height, each with a few objects that stand on the plane."""

    name = "rooms"
    class_names = ("Car", "Pedestrian", "Cyclist")
    contract = CONTRACT

    def __init__(self, num: int = 6, seed: int = 0, objects: int = 4, level: bool = False) -> None:
        self.num, self.seed, self.objects, self.level = num, seed, objects, level
        self.keys = [f"rooms/{i // 2:02d}/{i:02d}" for i in range(num)]

    def __len__(self) -> int:
        return self.num

    def plane(self, index: int) -> tuple[tuple[float, float], float]:
        rng = np.random.default_rng([self.seed, index, 1])
        if self.level:
            return (0.0, 0.0), -1.7
        slope = rng.uniform(-0.08, 0.08, 2)
        return (float(slope[0]), float(slope[1])), float(rng.uniform(-2.2, -1.2))

    def __getitem__(self, index: int) -> LabelledSweep:
        rng = np.random.default_rng([self.seed, index, 2])
        slope, height = self.plane(index)
        xy = rng.uniform(-20, 20, (4000, 2))
        cloud = [np.column_stack([xy, ground_height(xy, slope, height) + rng.normal(0, 0.01, len(xy))])]
        # A grid of stands, so that the objects of one sweep do not overlap.
        stands = rng.permutation(25)[: self.objects]
        center = np.column_stack([stands // 5, stands % 5]) * 7.0 - 14 + rng.uniform(-1, 1, (self.objects, 2))
        label = rng.integers(0, 3, self.objects)
        size, yaw = (
            SIZES[label] * rng.uniform(0.9, 1.1, (self.objects, 3)),
            rng.uniform(-math.pi, math.pi, self.objects),
        )
        bottom = ground_height(center, slope, height)
        for row in range(self.objects):
            local = rng.uniform(-0.49, 0.49, (30 + 10 * row, 3)) * size[row]
            cos, sin = math.cos(yaw[row]), math.sin(yaw[row])
            turned = np.column_stack([local[:, 0] * cos - local[:, 1] * sin, local[:, 0] * sin + local[:, 1] * cos])
            cloud.append(np.column_stack([turned + center[row], local[:, 2] + bottom[row] + size[row, 2] / 2]))
        xyz = torch.from_numpy(np.concatenate(cloud)).float()
        boxes = Boxes3D.make(
            torch.from_numpy(np.column_stack([center, bottom + size[:, 2] / 2])).float(),
            torch.from_numpy(size).float(),
            torch.from_numpy(yaw).float(),
            label=torch.from_numpy(label),
        )
        sweep = Sweep(xyz, torch.full((len(xyz), 1), 0.1 * index), CONTRACT, self.keys[index], 0.0)
        return LabelledSweep(sweep, boxes)

    def difficulties(self, index: int) -> torch.Tensor:
        return torch.arange(self.objects) % 4
