"""KITTI calibration files and the image that labels are confined to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

# (focal length P2[0, 0], width, height) of the rectified images of camera 2 by day of recording
# (S_rect_02 and P_rect_02 in the raw data's calib_cam_to_cam.txt).
_IMAGE_SIZES = (
    (721.5377, 1242, 375),  # 2011_09_26
    (707.0493, 1224, 370),  # 2011_09_28
    (718.3351, 1238, 374),  # 2011_09_29
    (707.0912, 1226, 370),  # 2011_09_30
    (718.8560, 1241, 376),  # 2011_10_03
)
_MOST_COMMON_SIZE = (1242, 375)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class KittiCalibration:
    """Calibration of one KITTI frame.

    Attributes:
        image_T_rect: P2, (3, 4): rectified camera 0 -> pixels of camera 2, homogeneous.
        rect_T_velo: (4, 4): velodyne -> rectified camera 0 (R0_rect * Tr_velo_to_cam).
    """

    image_T_rect: NDArray[np.float64]
    rect_T_velo: NDArray[np.float64]

    @property
    def velo_T_rect(self) -> NDArray[np.float64]:
        """(4, 4): rectified camera 0 -> velodyne."""
        return np.linalg.inv(self.rect_T_velo).astype(np.float64)

    def image_size(self) -> tuple[int, int]:
        """Return (width, height) of the image in pixels, by the focal length: each recording day had its own."""
        focal = self.image_T_rect[0, 0]
        for known, width, height in _IMAGE_SIZES:
            if abs(focal - known) < 0.01:
                return width, height
        return _MOST_COMMON_SIZE

    def project(self, xyz: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N 2"], Float[Tensor, " N"]]:
        """Return pixel coordinates (u, v) in image 2 and depth (metres, in front of the camera where positive)."""
        image_T_velo = torch.from_numpy(self.image_T_rect @ self.rect_T_velo)
        projected = xyz.double() @ image_T_velo[:, :3].T + image_T_velo[:, 3]
        return projected[:, :2] / projected[:, 2:], projected[:, 2]

    def in_image(self, xyz: Float[Tensor, "N 3"], size: tuple[int, int]) -> Bool[Tensor, " N"]:
        """Tell which points, velodyne frame, fall into an image of `size` (width, height).

        Only there do labels exist: what lies outside the camera's view is unlabelled, not empty.
        """
        uv, depth = self.project(xyz)
        width, height = size
        u, v = uv.unbind(1)
        return (depth > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)


def read_calibration(path: Path) -> KittiCalibration:
    """Read `calib/*.txt` of the object data set.

    Raises:
        FileNotFoundError: no such file.
        ValueError: P2, R0_rect or Tr_velo_to_cam are missing or not of their size.
    """
    matrices = read_matrices(path)
    rect_T_velo = rotation_4x4(matrix(matrices, "R0_rect", (3, 3), path)) @ rigid_4x4(
        matrix(matrices, "Tr_velo_to_cam", (3, 4), path)
    )
    return KittiCalibration(matrix(matrices, "P2", (3, 4), path), rect_T_velo)


def read_matrices(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read `name: numbers` lines (calib files of the object, odometry and raw data); lines of text are skipped.

    Raises:
        FileNotFoundError: no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no calibration file {path}")
    matrices = {}
    for line in path.read_text().splitlines():
        name, colon, numbers = line.partition(":")
        if not colon:
            continue
        try:
            matrices[name.strip()] = np.array(numbers.split(), dtype=np.float64)
        except ValueError:  # calib_time and the like
            continue
    return matrices


def matrix(
    matrices: dict[str, NDArray[np.float64]], name: str, shape: tuple[int, int], path: Path
) -> NDArray[np.float64]:
    """Return a named matrix in its shape.

    Raises:
        ValueError: `path` has no such matrix or another number of entries.
    """
    if name not in matrices or matrices[name].size != shape[0] * shape[1]:
        got = f"{matrices[name].size} numbers" if name in matrices else f"only {sorted(matrices)}"
        raise ValueError(f"{path}: expected {name} with {shape[0]} x {shape[1]} numbers, got {got}")
    return matrices[name].reshape(shape)


def rigid_4x4(three_by_four: NDArray[np.float64]) -> NDArray[np.float64]:
    """Append the row (0, 0, 0, 1)."""
    return np.vstack([three_by_four, [0.0, 0.0, 0.0, 1.0]])


def rotation_4x4(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a (3, 3) rotation as (4, 4)."""
    result = np.eye(4)
    result[:3, :3] = rotation
    return result


def read_png_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of a PNG from its first 24 bytes; the image is not decoded.

    Raises:
        ValueError: no PNG file.
    """
    with path.open("rb") as file:
        head = file.read(24)
    if not head.startswith(_PNG_SIGNATURE) or len(head) < 24:
        raise ValueError(f"{path}: not a PNG file")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
