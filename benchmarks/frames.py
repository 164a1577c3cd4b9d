"""Sweeps to measure on: real ones from EQUILIDAR_SAMPLES where it holds them, simulated ones elsewhere."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Frame:
    """One sweep.

    Attributes:
        name: where it is from.
        xyz: (N, 3) float32, metres, in the recording's own frame.
        intensity: (N, 1) float32.
    """

    name: str
    xyz: Tensor
    intensity: Tensor


def samples() -> Path:
    """Return the folder of real recordings, whether or not it exists."""
    return Path(os.environ.get("EQUILIDAR_SAMPLES", _DEFAULT))


def kitti(frame: str = "000008") -> Frame:
    """Return a KITTI detection frame cropped to the camera's view (000008: 17,238 points), else a simulated sweep."""
    path = samples() / "kitti_object" / "training" / "velodyne_reduced" / f"{frame}.bin"
    return _bin(f"KITTI {frame}", path, 4) or simulated()


def kitti_pair() -> tuple[Frame, Frame]:
    """Return two consecutive full KITTI sweeps of about 113,000 points, else simulated ones of about 119,000."""
    folder = samples() / "kitti_raw" / "2011_09_26_drive_0052_sync" / "velodyne_points"
    first, second = (_bin(f"KITTI raw 0052 {n}", folder / f"{n:010d}.bin", 4) for n in (5, 6))
    return (first, second) if first and second else (simulated(0, 2083), simulated(1, 2083))


def others() -> dict[str, Frame]:
    """Return one full sweep of each further dataset that is there: argoverse2, waymo, nuscenes."""
    found = {
        "argoverse2": _argoverse2(),
        "waymo": _bin("Waymo", samples() / "waymo" / "consecutive" / "seq_0_frame_100.bin", 5),
        "nuscenes": next(
            (_bin("nuScenes", path, 5) for path in sorted((samples() / "nuscenes/samples/LIDAR_TOP").glob("*.bin"))),
            None,
        ),
    }
    return {name: frame for name, frame in found.items() if frame is not None}


def simulated(index: int = 0, azimuth_steps: int = 1024) -> Frame:
    """Return a simulated sweep of 64 beams, by default of about 60,000 points; an HDL-64E takes 2083 steps a turn."""
    from equilidar.data.simulator import SimulatedPairs

    sweep = SimulatedPairs({"azimuth_steps": azimuth_steps}, num_sequences=1, frames_per_sequence=index + 2)[
        index
    ].source
    return Frame(f"simulated {index}", sweep.xyz, sweep.features[:, :1])


def _bin(name: str, path: Path, columns: int) -> Frame | None:
    if not path.is_file():
        return None
    table = torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, columns))
    return Frame(name, table[:, :3].contiguous(), table[:, 3:4].contiguous())


def _argoverse2() -> Frame | None:
    paths = sorted((samples() / "argoverse2" / "sensor").glob("*/sensors/lidar/*.feather"))
    if not paths:
        return None
    import pyarrow.feather

    table = pyarrow.feather.read_table(paths[0])
    xyz = np.stack([table[axis].to_numpy().astype(np.float32) for axis in "xyz"], 1)
    intensity = table["intensity"].to_numpy().astype(np.float32)[:, None]
    return Frame("Argoverse 2", torch.from_numpy(xyz), torch.from_numpy(intensity))
