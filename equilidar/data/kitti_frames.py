"""Labelled KITTI frames, wherever their files lie. Pair readers may not import this module."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64

from equilidar.data.kitti_calibration import KittiCalibration, read_calibration, read_png_size
from equilidar.data.kitti_labels import KittiObjects
from equilidar.data.listing import files_hash
from equilidar.data.point_files import PointFormat
from equilidar.structures import Boxes3D, LabelledSweep, SensorContract, Sweep


@dataclass(frozen=True, slots=True)
class KittiFrame:
    """Where the parts of a frame lie.

    Attributes:
        key: "dataset/sequence/frame".
        scan: point file.
        calibration: `calib/*.txt` of the object data set.
        labels: `label_2/*.txt`, None for testing frames.
        image: image of camera 2; only its size is read, and only if it is there.
        timestamp: seconds; 0 where frames are single.
    """

    key: str
    scan: Path
    calibration: Path
    labels: Path | None
    image: Path
    timestamp: float = 0.0


class KittiFrames:
    """Sweeps and boxes of KITTI frames.

    Labels exist only inside the image of camera 2. Points outside of it can be cut away, as the official protocol asks:
    there a car is no false alarm and no background, it is unlabelled.

    Attributes:
        frames: what there is.
        keys: of the frames.
        class_names: classes that are kept, in the order of their label index.
    """

    def __init__(self, name: str, frames: list[KittiFrame], class_names: tuple[str, ...], camera_crop: bool) -> None:
        self.name = name
        self.frames = frames
        self.keys = [frame.key for frame in frames]
        self.class_names = class_names
        self.camera_crop = camera_crop
        self._format = PointFormat()
        self.contract: SensorContract = self._format.contract
        if not class_names or len(set(class_names)) != len(class_names):
            raise ValueError(f"dataset.class_names must name each class once, got {list(class_names)}")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return sweep `index` with the boxes of `class_names` (none for testing frames)."""
        sweep = self.sweep(index)
        if self.frames[index].labels is None:
            return LabelledSweep(sweep, Boxes3D.empty())
        objects, calibration = self.objects(index), self.calibration(index)
        others = tuple(dict.fromkeys(name for name in objects.types if name not in (*self.class_names, "DontCare")))
        obstacles = objects.boxes(calibration, others) if others else None
        return LabelledSweep(sweep, objects.boxes(calibration, self.class_names), obstacles)

    def sweep(self, index: int) -> Sweep:
        """Return sweep `index`, cut to the image if that is set."""
        frame = self.frames[index]
        xyz, features = self._format.read(frame.scan)
        if self.camera_crop:
            inside = self.calibration(index).in_image(xyz, self.image_size(index))
            xyz, features = xyz[inside], features[inside]
        return Sweep(xyz, features, self.contract, frame.key, frame.timestamp)

    def calibration(self, index: int) -> KittiCalibration:
        """Return the calibration of frame `index`."""
        return read_calibration(self.frames[index].calibration)

    def objects(self, index: int) -> KittiObjects:
        """Return every label row of frame `index`, as the evaluator wants them.

        Raises:
            FileNotFoundError: a testing frame: its labels are not published.
        """
        path = self.frames[index].labels
        if path is None:
            raise FileNotFoundError(f"{self.keys[index]} has no labels: it is a testing frame")
        return KittiObjects.read(path)

    def difficulties(self, index: int) -> Int64[torch.Tensor, " M"]:
        """Return 0 easy, 1 moderate, 2 hard, 3 too hard to count, for each box of sweep `index`."""
        objects = self.objects(index)
        kept = [row for row, name in enumerate(objects.types) if name in self.class_names]
        return torch.from_numpy(objects.difficulties()[kept])

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (width, height) of image 2: of the file if there is one, else by the calibration."""
        image = self.frames[index].image
        return read_png_size(image) if image.is_file() else self.calibration(index).image_size()

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data; the hash covers names and sizes of scans and labels."""
        paths = [path for frame in self.frames for path in (frame.scan, frame.labels) if path is not None]
        return {
            "name": self.name,
            "num_samples": len(self),
            "camera_crop": self.camera_crop,
            "class_names": list(self.class_names),
            "hash": files_hash(self.keys, paths),
        }
