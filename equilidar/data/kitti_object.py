"""The KITTI 3D object detection data set."""

import logging
from pathlib import Path
from typing import Any

from equilidar.data.kitti_frames import KittiFrame, KittiFrames
from equilidar.data.kitti_labels import CLASS_NAMES
from equilidar.data.listing import require_folder

_LOG = logging.getLogger(__name__)

_SCANS = ("any", "velodyne", "velodyne_reduced")
_TESTING = ("test", "testing")


class KittiObject(KittiFrames):
    """Sweeps and boxes of `training/` or `testing/`: velodyne, calib, label_2, ImageSets.

    Attributes:
        frame_ids: "000008", in the order of the split's list.
        missing: ids that the split lists but the folder does not hold (with `allow_missing`).

    Raises:
        FileNotFoundError: a folder, the split's list or, without `allow_missing`, a frame does not exist.
        ValueError: the settings contradict one another.
    """

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
            camera_crop: cut to the image of camera 2; see `KittiFrames`.
            allow_missing: use those frames of the split that are there.
        """
        self.root = require_folder(Path(root), "KITTI object data", "dataset.root")
        self.split = split
        self._folder = self.root / ("testing" if split in _TESTING else "training")
        if scans not in _SCANS:
            raise ValueError(f"dataset.scans must be one of {', '.join(_SCANS)}, got {scans!r}")
        if not camera_crop and scans == "any":
            raise ValueError("without camera_crop full and reduced scans would mix: set dataset.scans to velodyne")
        require_folder(self._folder, "KITTI object data", "dataset.root")
        self._scan_folders = ("velodyne", "velodyne_reduced") if scans == "any" else (scans,)
        listed = self._listed()
        frames = {frame_id: self._frame(frame_id) for frame_id in listed}
        self.missing = tuple(frame_id for frame_id, frame in frames.items() if frame is None)
        self._check_missing(len(listed), allow_missing)
        self.frame_ids = [frame_id for frame_id, frame in frames.items() if frame is not None]
        present = [frame for frame in frames.values() if frame is not None]
        super().__init__("kitti_object", present, tuple(class_names), camera_crop)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data."""
        return {**super().provenance(), "split": self.split, "num_missing": len(self.missing)}

    def _listed(self) -> list[str]:
        if self.split == "all" or self.split in _TESTING:
            folder = require_folder(self._folder / "calib", "KITTI calibration", "dataset.root")
            return sorted(path.stem for path in folder.glob("*.txt"))
        candidates = [self.root / name / f"{self.split}.txt" for name in ("ImageSets", "ImageSets_official")]
        path = next((p for p in [*candidates, Path(self.split)] if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(
                f"no list for split {self.split!r}: looked for {', '.join(map(str, candidates))}; "
                "set dataset.root to the folder that holds ImageSets, or dataset.split to a list, test or all"
            )
        return path.read_text().split()

    def _frame(self, frame_id: str) -> KittiFrame | None:
        """Return the frame, or None if a part of it is missing."""
        scans = (self._folder / name / f"{frame_id}.bin" for name in self._scan_folders)
        scan = next((path for path in scans if path.is_file()), None)
        calibration = self._folder / "calib" / f"{frame_id}.txt"
        labels = None if self.split in _TESTING else self._folder / "label_2" / f"{frame_id}.txt"
        if scan is None or not calibration.is_file() or not (labels is None or labels.is_file()):
            return None
        key = f"kitti_object/{self._folder.name}/{frame_id}"
        return KittiFrame(key, scan, calibration, labels, self._folder / "image_2" / f"{frame_id}.png")

    def _check_missing(self, num_listed: int, allow_missing: bool) -> None:
        if len(self.missing) == num_listed:
            raise FileNotFoundError(
                f"no frame of split {self.split!r} ({num_listed} listed) is complete under {self._folder}: each needs "
                f"a scan ({' or '.join(self._scan_folders)}), calib and label_2"
            )
        if not self.missing or self.split == "all" or self.split in _TESTING:
            return
        if not allow_missing:
            raise FileNotFoundError(
                f"{len(self.missing)} of {num_listed} frames of split {self.split!r} are not under {self._folder} "
                f"(first: {', '.join(self.missing[:3])}): each needs a scan ({' or '.join(self._scan_folders)}), calib "
                "and label_2; set dataset.allow_missing=true to use those that are there"
            )
        _LOG.warning(
            "KITTI split %s: %d of %d frames are there", self.split, num_listed - len(self.missing), num_listed
        )
