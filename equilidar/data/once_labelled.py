"""Annotated frames of ONCE with their boxes. Pair readers may not import this module."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from equilidar.data.listing import content_hash, files_hash
from equilidar.data.once import OnceSweeps, find_sequences, read_frames, sweep_frame
from equilidar.data.recordings import Frame
from equilidar.structures import Boxes3D, LabelledSweep, SensorContract, Sweep
from equilidar.structures.boxes import wrap_angle

CLASS_NAMES = ("Car", "Truck", "Bus", "Pedestrian", "Cyclist")


class OnceLabelled:
    """Annotated frames. ONCE gives neither velocities nor tracks: the boxes' are unknown.

    Attributes:
        frames: annotated sweeps.
        class_names: classes that are kept, in the order of their label index.
        min_points: boxes with fewer points of the sweep in them are left out.

    Raises:
        FileNotFoundError: see `Once`.
        ValueError: the settings do not fit, annotations cannot be read, or no frame is annotated.
    """

    def __init__(
        self,
        root: str | Path,
        splits: list[str] | tuple[str, ...] = ("train",),
        sequences: list[str] | tuple[str, ...] | None = None,
        class_names: list[str] | tuple[str, ...] = CLASS_NAMES,
        min_points: int = 1,
        intensity_scale: float = 255.0,
    ) -> None:
        """List the frames.

        Args:
            root: see `Once`.
            splits: "train", "val".
            sequences: names, instead of splits.
            class_names: of Car, Truck, Bus, Pedestrian, Cyclist.
            min_points: counted here, for ONCE does not say.
            intensity_scale: see `OnceSweeps`.
        """
        if not class_names or len(set(class_names)) != len(class_names) or not set(class_names) <= set(CLASS_NAMES):
            raise ValueError(f"dataset.class_names must be of {', '.join(CLASS_NAMES)}, got {list(class_names)}")
        self.name = "once"
        self.class_names = tuple(class_names)
        self.min_points = min_points
        self._reader = OnceSweeps(float(intensity_scale))
        self.contract: SensorContract = self._reader.contract
        folders = find_sequences(Path(root), splits, sequences)
        self.frames: list[Frame] = []
        self._boxes: list[tuple[list[str], list[list[float]]]] = []
        for folder in folders:
            for entry in read_frames(folder, annotations=True):
                if isinstance(entry.get("annos"), dict):
                    self.frames.append(sweep_frame(folder, str(entry["frame_id"])))
                    self._boxes.append(_checked(entry["annos"], folder, str(entry["frame_id"])))
        self.keys = [frame.key for frame in self.frames]
        if not self.frames:
            raise ValueError(f"none of the frames of {len(folders)} sequences under {root} is annotated")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return sweep `index` with the boxes of `class_names`."""
        frame = self.frames[index]
        xyz, features = self._reader.read(frame)
        names, rows = self._boxes[index]
        kept = [i for i, name in enumerate(names) if name in self.class_names]
        table = torch.tensor([rows[i] for i in kept], dtype=torch.float64).reshape(len(kept), 7)
        x, y, z = table[:, :3].unbind(1)
        # The files' axes are x left, y backward: see ONCE_T_SENSOR.
        boxes = Boxes3D.make(
            torch.stack([-y, x, z], 1).float(),
            table[:, 3:6].float(),
            wrap_angle(table[:, 6] + np.pi / 2).float(),
            label=torch.tensor([self.class_names.index(names[i]) for i in kept], dtype=torch.int64),
        )
        boxes = boxes.select(boxes.contains(xyz).sum(1) >= self.min_points)
        return LabelledSweep(Sweep(xyz, features, self.contract, frame.key, frame.timestamp), boxes)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data; the hash covers names and sizes of sweeps, and the boxes."""
        return {
            "name": self.name,
            "num_samples": len(self),
            "class_names": list(self.class_names),
            "min_points": self.min_points,
            "hash": content_hash([files_hash(self.keys, [frame.path for frame in self.frames]), self._boxes]),
        }


def _checked(annos: dict[str, Any], sequence: Path, frame_id: str) -> tuple[list[str], list[list[float]]]:
    """Return class names and boxes (x, y, z, length, width, height, yaw) of a frame's annotations."""
    where = f"{sequence / sequence.name}.json, frame {frame_id}"
    names, boxes = annos.get("names"), annos.get("boxes_3d")
    if not isinstance(names, list) or not isinstance(boxes, list) or len(names) != len(boxes):
        raise ValueError(f"{where}: annos need as many names as boxes_3d; download the annotations again")
    unknown = sorted(set(names) - set(CLASS_NAMES))
    if unknown:
        raise ValueError(f"{where}: unknown class {', '.join(map(repr, unknown))}; ONCE has {', '.join(CLASS_NAMES)}")
    if any(not isinstance(box, list) or len(box) != 7 or not np.isfinite(box).all() for box in boxes):
        raise ValueError(f"{where}: a box is not 7 finite numbers")
    return names, boxes
