"""KITTI label files, and their boxes in the package's convention. Pair readers may not import this module."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from equilidar.data.kitti_calibration import KittiCalibration
from equilidar.structures import Boxes3D
from equilidar.structures.boxes import wrap_angle

CLASS_NAMES = ("Car", "Pedestrian", "Cyclist")
NUM_COLUMNS = 15
# Easy, moderate, hard: least height in the image (pixels), most occlusion, most truncation.
_LIMITS = ((40, 0, 0.15), (25, 1, 0.30), (25, 2, 0.50))


@dataclass(frozen=True)
class KittiObjects:
    """Rows of a KITTI label file, in its own conventions, `DontCare` included.

    Attributes:
        types: class names as in the file.
        truncated: (M,) 0..1, -1 for DontCare.
        occluded: (M,) int, 0 visible, 1 partly, 2 largely occluded, 3 unknown, -1 for DontCare.
        alpha: (M,) observation angle.
        image_box: (M, 4) left, top, right, bottom, pixels of image 2.
        height_width_length: (M, 3) metres.
        bottom_center: (M, 3) middle of the box's bottom face in the rectified camera 0 frame.
        rotation_y: (M,) about the camera's y axis (down).
    """

    types: tuple[str, ...]
    truncated: NDArray[np.float64]
    occluded: NDArray[np.int64]
    alpha: NDArray[np.float64]
    image_box: NDArray[np.float64]
    height_width_length: NDArray[np.float64]
    bottom_center: NDArray[np.float64]
    rotation_y: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.types)

    @classmethod
    def read(cls, path: Path) -> "KittiObjects":
        """Read a label file; an empty one has no objects.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a row is no label row.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no label file {path}")
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        for number, row in enumerate(rows, 1):
            if len(row) not in (NUM_COLUMNS, NUM_COLUMNS + 1):
                raise ValueError(f"{path}, row {number}: {len(row)} columns, a KITTI label has {NUM_COLUMNS}")
        try:
            table = np.array([row[1:NUM_COLUMNS] for row in rows], dtype=np.float64).reshape(-1, NUM_COLUMNS - 1)
        except ValueError as error:
            raise ValueError(f"{path}: a label holds something that is no number ({error})") from error
        return cls(
            tuple(row[0] for row in rows),
            table[:, 0],
            table[:, 1].astype(np.int64),
            table[:, 2],
            table[:, 3:7],
            table[:, 7:10],
            table[:, 10:13],
            table[:, 13],
        )

    def difficulties(self) -> NDArray[np.int64]:
        """Return (M,) 0 easy, 1 moderate, 2 hard, 3 too hard to count: the official limits of height, occlusion and
        truncation, as in the development kit (an object as high as a limit is below it)."""
        height = self.image_box[:, 3] - self.image_box[:, 1]
        result = np.full(len(self), len(_LIMITS), dtype=np.int64)
        for level, (low, occluded, truncated) in reversed(list(enumerate(_LIMITS))):
            result[(height > low) & (self.occluded <= occluded) & (self.truncated <= truncated)] = level
        return result

    def boxes(self, calibration: KittiCalibration, class_names: tuple[str, ...]) -> Boxes3D:
        """Return the objects of `class_names` as boxes in the velodyne frame; all others are dropped, DontCare too.

        The middle of the bottom face is moved to the velodyne frame and raised there by half the height, as OpenPCDet
        does; yaw = -(rotation_y + pi / 2). The small tilt between the two frames' verticals is not in the box: it has
        no pitch or roll (as everywhere with KITTI).
        """
        rows = [i for i, name in enumerate(self.types) if name in class_names]
        height, width, length = self.height_width_length[rows].T
        velo_T_rect = calibration.velo_T_rect
        center = self.bottom_center[rows] @ velo_T_rect[:3, :3].T + velo_T_rect[:3, 3]
        center[:, 2] += height / 2
        return Boxes3D.make(
            torch.from_numpy(center).float(),
            torch.from_numpy(np.stack([length, width, height], 1)).float(),
            wrap_angle(torch.from_numpy(-(self.rotation_y[rows] + np.pi / 2))).float(),
            label=torch.tensor([class_names.index(self.types[i]) for i in rows], dtype=torch.int64),
        )
