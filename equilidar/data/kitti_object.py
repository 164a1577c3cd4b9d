"""The KITTI 3D object detection data set."""

import logging
from pathlib import Path
from typing import Any

from equilidar.data.kitti_calibration import KittiCalibration, read_calibration, read_png_size
from equilidar.data.kitti_labels import CLASS_NAMES, KittiObjects
from equilidar.data.listing import files_hash, require_folder
from equilidar.data.point_files import PointFormat
from equilidar.structures import Boxes3D, LabelledSweep, SensorContract, Sweep

_LOG = logging.getLogger(__name__)

_SCANS = ("any", "velodyne", "velodyne_reduced")


class KittiObject:
    """Sweeps and boxes of `training/` or `testing/`: velodyne, calib, label_2, ImageSets.

    Labels exist only inside the image of camera 2, so by default the points outside of it are cut away, as the official
    protocol asks: there a car is no false alarm and no background, it is unlabelled.

    Attributes:
        keys: "kitti_object/training/000008", in the order of the split's list.
        frames: "000008", likewise.
        missing: frames that the split lists but the folder does not hold (with `allow_missing`).

    Raises:
        FileNotFoundError: a folder, the split's list or, without `allow_missing`, a frame does not exist.
        ValueError: the settings contradict one another.
    """

    name = "kitti_object"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        class_names: tuple[str, ...] | list[str] = CLASS_NAMES,
        scans: str = "any",
        camera_crop: bool = True,
        allow_missing: bool = False,
    ) -> None:
        """List the frames.

        Args:
            root: folder that holds `training/`, `testing/` and `ImageSets/` (or `ImageSets_official/`).
            split: name of a list in ImageSets ("train", "val", "trainval"), a path to such a list, "test", or "all"
                (every labelled frame that is there).
            class_names: classes that are kept, in the order of their label index.
            scans: `velodyne` are full turns, `velodyne_reduced` the same cut to the image; "any" takes the full one
                where there is one.
            camera_crop: cut to the image of camera 2.
            allow_missing: use those frames of the split that are there.
        """
        self.root = require_folder(Path(root), "KITTI object data", "dataset.root")
        self.split = split
        self.part = "testing" if split in ("test", "testing") else "training"
        self.class_names = tuple(class_names)
        self.scans = scans
        self.camera_crop = camera_crop
        if scans not in _SCANS:
            raise ValueError(f"dataset.scans must be one of {', '.join(_SCANS)}, got {scans!r}")
        if not camera_crop and scans == "any":
            raise ValueError("without camera_crop full and reduced scans would mix: set scans to velodyne")
        require_folder(self.root / self.part, "KITTI object data", "dataset.root")
        self._format = PointFormat()
        self.contract: SensorContract = self._format.contract
        self.missing: tuple[str, ...] = ()
        self.frames = self._present(self._listed(), allow_missing)
        self.keys = [f"{self.name}/{self.part}/{frame}" for frame in self.frames]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledSweep:
        """Return sweep `index` with the boxes of `class_names` (none for testing frames)."""
        sweep = self.sweep(index)
        if self.part == "testing":
            return LabelledSweep(sweep, Boxes3D.empty())
        return LabelledSweep(sweep, self.objects(index).boxes(self.calibration(index), self.class_names))

    def sweep(self, index: int) -> Sweep:
        """Return sweep `index`, cut to the image if that is set."""
        path = self._scan_path(self.frames[index])
        assert path is not None, "frames without a scan were sorted out"
        xyz, features = self._format.read(path)
        if self.camera_crop:
            inside = self.calibration(index).in_image(xyz, self.image_size(index))
            xyz, features = xyz[inside], features[inside]
        # The object data set is shuffled single frames: there is no time and no pose.
        return Sweep(xyz, features, self.contract, self.keys[index], timestamp=0.0)

    def calibration(self, index: int) -> KittiCalibration:
        """Return the calibration of frame `index`."""
        return read_calibration(self._path("calib", index, ".txt"))

    def objects(self, index: int) -> KittiObjects:
        """Return every label row of frame `index`, as the evaluator wants them."""
        return KittiObjects.read(self._path("label_2", index, ".txt"))

    def image_size(self, index: int) -> tuple[int, int]:
        """Return (width, height) of image 2: of the file if there is one, else by the calibration."""
        image = self._path("image_2", index, ".png")
        return read_png_size(image) if image.is_file() else self.calibration(index).image_size()

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data."""
        paths = [self._scan_path(frame) or self.root for frame in self.frames]
        if self.part == "training":
            paths += [self._path("label_2", i, ".txt") for i in range(len(self))]
        return {
            "name": self.name,
            "split": self.split,
            "num_samples": len(self),
            "num_missing": len(self.missing),
            "camera_crop": self.camera_crop,
            "class_names": list(self.class_names),
            "hash": files_hash(self.keys, paths),
        }

    def _path(self, folder: str, index: int, suffix: str) -> Path:
        return self.root / self.part / folder / (self.frames[index] + suffix)

    def _scan_path(self, frame: str) -> Path | None:
        folders = ("velodyne", "velodyne_reduced") if self.scans == "any" else (self.scans,)
        paths = [self.root / self.part / folder / f"{frame}.bin" for folder in folders]
        return next((path for path in paths if path.is_file()), None)

    def _listed(self) -> list[str]:
        if self.split in ("test", "testing", "all"):
            folder = require_folder(self.root / self.part / "calib", "KITTI calibration", "dataset.root")
            return sorted(path.stem for path in folder.glob("*.txt"))
        candidates = [self.root / name / f"{self.split}.txt" for name in ("ImageSets", "ImageSets_official")]
        path = next((p for p in [*candidates, Path(self.split)] if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"no list for split {self.split!r}: looked for {', '.join(map(str, candidates))}; "
                "set dataset.split to a list's name or path, test, or all"
            )
        return [line.strip() for line in path.read_text().split() if line.strip()]

    def _present(self, listed: list[str], allow_missing: bool) -> list[str]:
        present = [frame for frame in listed if self._complete(frame)]
        missing = tuple(frame for frame in listed if not self._complete(frame)) if len(present) < len(listed) else ()
        if missing and not allow_missing and self.split not in ("all", "test", "testing"):
            raise FileNotFoundError(
                f"{len(missing)} of {len(listed)} frames of split {self.split!r} are not under "
                f"{self.root / self.part} (first: {', '.join(missing[:3])}): each needs a scan ({self.scans}), calib "
                "and label_2; set dataset.allow_missing=true to use those that are there"
            )
        if not present:
            raise FileNotFoundError(f"no frame of split {self.split!r} under {self.root / self.part}")
        if missing:
            _LOG.warning("KITTI split %s: %d of %d frames are there", self.split, len(present), len(listed))
        self.missing = missing
        return present

    def _complete(self, frame: str) -> bool:
        folders = ("calib",) if self.part == "testing" else ("calib", "label_2")
        folder = self.root / self.part
        return self._scan_path(frame) is not None and all((folder / f / f"{frame}.txt").is_file() for f in folders)
