"""The region of interest of an Argoverse 2 log: the drivable area and 5 m around it.

As av2 0.3.6 rasterises it: cells of 0.1 m from the least whole x, y of the polygons on; vertices rounded to cells and
filled, border included; a cell is inside when a drivable cell lies within 50 cells, center to center. A box is inside
when any of its corners, in the city's frame, falls on such a cell.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from equilidar.compiled import compiled
from equilidar.evaluation.argoverse2 import Inside
from equilidar.evaluation.argoverse2_boxes import Argoverse2Boxes
from equilidar.evaluation.argoverse2_files import numbers_of, read_table
from equilidar.evaluation.quaternions import rotation_of

_CELLS_PER_METRE = 10
_REACH = 50  # cells
_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_POSES = "city_SE3_egovehicle.feather"
_POSE = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")


@dataclass(slots=True)
class RegionOfInterest:
    """Raster of a log's drivable area.

    Attributes:
        origin: (2,) city coordinates of the raster's corner, metres.
        gap: (H, W) cells along the row to the nearest drivable one, 255 where that is farther than the reach.
    """

    origin: Float64[np.ndarray, " 2"]
    gap: UInt8[np.ndarray, "H W"]

    @classmethod
    def read(cls, folder: Path) -> "RegionOfInterest":
        """Rasterise the vector map of a log's `map` folder.

        Raises:
            FileNotFoundError: there is no map.
            ValueError: it has no drivable area.
        """
        from PIL import Image, ImageDraw

        path = next(iter(sorted(folder.glob("log_map_archive_*.json"))), None)
        if path is None:
            raise FileNotFoundError(f"no log_map_archive_*.json in {folder}")
        areas = json.loads(path.read_text()).get("drivable_areas")
        if not areas:
            raise ValueError(f"{path} has no drivable_areas")
        polygons = [
            np.array([[point["x"], point["y"]] for point in area["area_boundary"]], dtype=np.float64)
            for area in areas.values()
        ]
        vertices = np.concatenate(polygons)
        low, high = np.floor(vertices.min(0)), np.ceil(vertices.max(0))
        width, height = ((high - low + 1) * _CELLS_PER_METRE).astype(int).tolist()
        image = Image.new("L", (width, height))
        for polygon in polygons:
            cells = np.round((polygon - low) * _CELLS_PER_METRE).astype(int)
            ImageDraw.Draw(image).polygon([(x, y) for x, y in cells.tolist()], outline=1, fill=1)
        return cls(low, _gap_along_rows(np.asarray(image)))

    def contains(self, city_xy: Float64[np.ndarray, "N 2"]) -> Bool[np.ndarray, " N"]:
        """Tell which points of the city's frame lie inside."""
        # Toward zero, not down: a point up to a cell beside the raster falls on its first cell, officially.
        cells = np.trunc((city_xy - self.origin) * _CELLS_PER_METRE).astype(np.int64)
        return _near_drivable(self.gap, cells)


def boxes_inside(ground_truth: Argoverse2Boxes, detections: Argoverse2Boxes, folders: dict[str, Path]) -> Inside:
    """Tell which boxes lie on the region of interest of their log.

    One log's raster is held at a time.

    Args:
        ground_truth: annotations.
        detections: detections.
        folders: folder of each log, with map/log_map_archive_*.json and city_SE3_egovehicle.feather.

    Raises:
        FileNotFoundError: a map or the poses are missing.
        ValueError: a sweep has no pose.
    """
    tables = (ground_truth, detections)
    inside = [np.zeros(len(boxes), np.bool_) for boxes in tables]
    for log in sorted({log for boxes in tables for log, _ in boxes.sweeps}):
        if log not in folders:
            raise FileNotFoundError(f"no folder of log {log}: its map tells what is to be evaluated")
        region, poses = RegionOfInterest.read(folders[log] / "map"), _Poses(folders[log] / _POSES)
        for boxes, mask in zip(tables, inside, strict=True):
            of_log = np.array([name == log for name, _ in boxes.sweeps], dtype=np.bool_)
            rows = np.nonzero(of_log[boxes.sweep])[0] if len(boxes) else np.zeros(0, np.int64)
            mask[rows] = _any_corner_inside(boxes.select(rows), region, poses)
    return Inside(*inside)


class _Poses:
    def __init__(self, path: Path) -> None:
        table = read_table(path, ("timestamp_ns", *_POSE))
        self._path, self._stamps = path, table["timestamp_ns"].to_numpy()
        poses = numbers_of(table, _POSE, path)
        order = np.argsort(self._stamps)
        self._stamps, poses = self._stamps[order], poses[order]
        self._rotation, self._translation = rotation_of(poses[:, :4]), poses[:, 4:]

    def at(self, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.searchsorted(self._stamps, stamps).clip(0, len(self._stamps) - 1)
        if not (self._stamps[place] == stamps).all():
            raise ValueError(f"{self._path} has no pose at {stamps[self._stamps[place] != stamps][0]}")
        return self._rotation[place], self._translation[place]


def _any_corner_inside(boxes: Argoverse2Boxes, region: RegionOfInterest, poses: _Poses) -> Bool[np.ndarray, " N"]:
    if not len(boxes):
        return np.zeros(0, np.bool_)
    stamps = np.array([stamp for _, stamp in boxes.sweeps], dtype=np.int64)[boxes.sweep]
    city_R_ego, city_t_ego = poses.at(stamps)
    city_R_box = city_R_ego @ rotation_of(boxes.rotation)
    center = (city_R_ego @ boxes.center[:, :, None])[:, :, 0] + city_t_ego
    corners = (_CORNERS * boxes.size[:, None]) @ city_R_box.swapaxes(1, 2) + center[:, None]
    return np.any(region.contains(corners[..., :2].reshape(-1, 2)).reshape(-1, 8), axis=1)


@compiled
def _gap_along_rows(drivable):
    height, width = drivable.shape
    gap = np.full((height, width), 255, np.uint8)
    for y in range(height):
        since = 255
        for x in range(width):
            since = 0 if drivable[y, x] else min(since + 1, 255)
            gap[y, x] = since
        since = 255
        for x in range(width - 1, -1, -1):
            since = 0 if drivable[y, x] else min(since + 1, 255)
            if since < gap[y, x]:
                gap[y, x] = since
    return gap


@compiled
def _near_drivable(gap, cells):
    height, width = gap.shape
    inside = np.zeros(len(cells), np.bool_)
    for i in range(len(cells)):
        x, y = cells[i, 0], cells[i, 1]
        if x < 0 or y < 0 or x >= width or y >= height:
            continue
        for row in range(max(0, y - 50), min(height, y + 51)):
            across = np.int64(gap[row, x])
            if across * across + (row - y) * (row - y) <= 2500:
                inside[i] = True
                break
    return inside
