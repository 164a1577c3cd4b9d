"""Scene flow of KITTI raw drives, derived from the boxes of annotated frames; for measuring alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation, Slerp

from equilidar.data.kitti_calibration import KittiCalibration
from equilidar.data.kitti_labels import KittiObjects
from equilidar.data.kitti_raw import KittiRaw
from equilidar.data.kitti_raw_labelled import KittiRawLabelled
from equilidar.formats.argoverse2_annotations import CATEGORIES
from equilidar.structures import Boxes3D, LabelledPair

_CATEGORY = {
    "Car": "REGULAR_VEHICLE",
    "Van": "REGULAR_VEHICLE",
    "Truck": "TRUCK",
    "Pedestrian": "PEDESTRIAN",
    "Person_sitting": "PEDESTRIAN",
    "Cyclist": "BICYCLIST",
    "Tram": "RAILED_VEHICLE",
    "Misc": "LARGE_VEHICLE",
}
_CLASSES = tuple(_CATEGORY)
_FASTEST = 40.0  # m/s over ground: a box farther off is another object's
_SAME_SIZE = 0.02  # metres; a track of KITTI keeps its size
_MOVES = 1.0  # m/s; below, what boxes of two frames differ by is how they were drawn
_AROUND, _BOTTOM = 0.3, 0.2  # metres around a box and above its lower face whose points could be either's


@dataclass(frozen=True)
class _Track:
    """An object that is annotated in two frames: its poses over ground (4, 4) and its row in the first."""

    row: int
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    def at(self, fraction: float) -> NDArray[np.float64]:
        """Return its pose in between, at constant speed."""
        pose = np.eye(4)
        turns = Rotation.from_matrix(np.stack([self.before[:3, :3], self.after[:3, :3]]))
        pose[:3, :3] = Slerp([0.0, 1.0], turns)(fraction).as_matrix()
        pose[:3, 3] = (1 - fraction) * self.before[:3, 3] + fraction * self.after[:3, 3]
        return pose


class KittiRawLabelledPairs:
    """Pairs whose source sweep is annotated (`label_2`), with flow from its boxes and those of the next annotated one.

    There are no track numbers: boxes of the same class and size (a KITTI track keeps its size) are the same object, the
    nearest over ground where there are several. Between the two annotated sweeps objects move at constant speed. Those
    slower than 1 m/s, and everything outside of boxes, flow with the ego motion (GPS/IMU or KISS-ICP), so that errors
    of static points tell how far an estimate departs from these poses, not how good they are.

    Not valid, because nobody knows: points in no box that are outside of the image of camera 2 or in its `DontCare`
    regions (nothing is annotated there), points in boxes without a partner, within 0.3 m of a box, and in its lowest
    0.2 m (ground or wheel).

    Attributes:
        pairs: all pairs of the drives, without labels.
        labelled: the annotated frames.
        keys: of the pairs with truth.

    Raises:
        FileNotFoundError: a folder does not exist, or no frame has labels.
        ValueError: no two annotated sweeps are near enough in time.
    """

    name = "kitti_raw"

    def __init__(
        self,
        root: str | Path,
        drives: list[str] | tuple[str, ...] | None = None,
        gap: int = 1,
        max_seconds: float = 0.25,
        cache_dir: str | Path | None = None,
    ) -> None:
        """List the pairs.

        Args:
            root: folder of drives, or of days that hold drives.
            drives: names; None for all.
            gap: frames from source to target.
            max_seconds: between two annotated frames, at most; the longer, the less is constant speed true.
            cache_dir: for estimated poses; see `EgoMotion`.
        """
        # Validation drives may be measured on: nothing is trained here.
        self.pairs = KittiRaw(root, drives, gap=gap, allow_validation_drives=True, cache_dir=cache_dir)
        self.labelled = KittiRawLabelled(root, drives, _CLASSES, camera_crop=False)
        row = {key: place for place, key in enumerate(self.labelled.keys)}
        self._poses = {
            frame.key: pose
            for run in self.pairs.runs
            if run.world_T_sensor is not None
            for frame, pose in zip(run.frames, run.world_T_sensor, strict=True)
        }
        # (index of the pair, annotated frame of its source, next annotated frame at or after its target)
        self._places: list[tuple[int, int, int]] = []
        for index, key in enumerate(self.pairs.keys):
            source, target = key.split("->")
            after = self._next(row, source, target, max_seconds)
            if source in row and after is not None:
                self._places.append((index, row[source], after))
        self.keys = [self.pairs.keys[index] for index, _, _ in self._places]
        if not self.keys:
            raise ValueError(
                f"{root}: no sweep with label_2 has another one at least {gap} frames and at most {max_seconds} s "
                "later; raise dataset.max_seconds"
            )

    def _next(self, row: dict[str, int], source: str, target: str, max_seconds: float) -> int | None:
        """Return the first annotated frame of the drive that is not before `target`."""
        drive = source.rpartition("/")[0]
        later = sorted(key for key in row if key.rpartition("/")[0] == drive and key >= target and key in self._poses)
        if source not in row or not later:
            return None
        frames = self.labelled.frames
        seconds = frames[row[later[0]]].timestamp - frames[row[source]].timestamp
        return row[later[0]] if seconds <= max_seconds + 1e-6 else None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> LabelledPair:
        """Return pair `index`; raises FaultySweepError where one of its sweeps cannot be used."""
        place, before, after = self._places[index]
        pair = self.pairs[place]
        frames = self.labelled.frames
        seconds = frames[after].timestamp - frames[before].timestamp
        fraction = (pair.target.timestamp - pair.source.timestamp) / seconds
        boxes, xyz = self._boxes(before), pair.source.xyz
        motion = pair.target_T_source.numpy()
        rest = _moved(xyz, motion) - xyz
        flow, valid = rest.clone(), self._seen(before, xyz) & ~_near(boxes, xyz)
        dynamic, instance = torch.zeros_like(valid), torch.full((len(xyz),), -1)
        category = torch.zeros(len(xyz), dtype=torch.int64)
        inside = boxes.contains(xyz)
        tracks = {track.row: track for track in self._tracks(before, after)}
        target_T_world = np.linalg.inv(self._poses[pair.target.key])
        world_T_source = self._poses[pair.source.key]
        for row, own in enumerate(inside):
            category[own] = 1 + CATEGORIES.index(_CATEGORY[_CLASSES[int(boxes.label[row])]])
            instance[own] = row
            if row not in tracks:
                valid[own] = False
                continue
            track = tracks[row]
            valid[own] = xyz[own, 2] > boxes.center[row, 2] - boxes.size[row, 2] / 2 + _BOTTOM
            if np.linalg.norm(track.after[:3, 3] - track.before[:3, 3]) > _MOVES * seconds:
                now = np.linalg.inv(track.before) @ world_T_source
                flow[own] = _moved(xyz[own], target_T_world @ track.at(fraction) @ now) - xyz[own]
                dynamic[own] = True
        pair.flow, pair.flow_valid = flow, valid
        return LabelledPair(pair, rest, dynamic, category, torch.where(category > 0, instance, -1))

    def _boxes(self, frame: int) -> Boxes3D:
        return self.labelled.objects(frame).boxes(self.labelled.calibration(frame), _CLASSES)

    def _tracks(self, before: int, after: int) -> list[_Track]:
        """Return the objects of one annotated frame that are in another one, too."""
        first, second = self._boxes(before), self._boxes(after)
        seconds = self.labelled.frames[after].timestamp - self.labelled.frames[before].timestamp
        keys = self.labelled.keys
        poses = _box_poses(first, self._poses[keys[before]]), _box_poses(second, self._poses[keys[after]])
        distance = np.linalg.norm(poses[0][:, None, :3, 3] - poses[1][None, :, :3, 3], axis=2)
        same = (first.label[:, None] == second.label[None]) & (
            (first.size[:, None] - second.size[None]).abs() <= _SAME_SIZE
        ).all(2)
        cost = np.where(same.numpy() & (distance <= _FASTEST * seconds), distance, 1e6)
        pairs = zip(*linear_sum_assignment(cost), strict=True)
        return [_Track(int(i), poses[0][i], poses[1][j]) for i, j in pairs if cost[i, j] < 1e6]

    def _seen(self, frame: int, xyz: Float[torch.Tensor, "N 3"]) -> Bool[torch.Tensor, " N"]:
        """Tell which points lie where KITTI annotates: in the image of camera 2 and outside of `DontCare` regions."""
        calibration, objects = self.labelled.calibration(frame), self.labelled.objects(frame)
        seen = calibration.in_image(xyz, self.labelled.image_size(frame))
        return seen & ~_in_ignored_regions(calibration, objects, xyz)


def _in_ignored_regions(
    calibration: KittiCalibration, objects: KittiObjects, xyz: Float[torch.Tensor, "N 3"]
) -> Bool[torch.Tensor, " N"]:
    pixels, _ = calibration.project(xyz)
    inside = torch.zeros(len(xyz), dtype=torch.bool)
    for name, region in zip(objects.types, objects.image_box, strict=True):
        if name == "DontCare":
            left, top, right, bottom = region
            u, v = pixels.unbind(1)
            inside |= (u >= left) & (u <= right) & (v >= top) & (v <= bottom)
    return inside


def _near(boxes: Boxes3D, xyz: Float[torch.Tensor, "N 3"]) -> Bool[torch.Tensor, " N"]:
    return boxes.contains(xyz, _AROUND).any(0) & ~boxes.contains(xyz).any(0)


def _moved(xyz: Float[torch.Tensor, "N 3"], matrix: NDArray[np.float64]) -> Float[torch.Tensor, "N 3"]:
    moved = xyz.double() @ torch.from_numpy(matrix[:3, :3].T.copy()) + torch.from_numpy(matrix[:3, 3].copy())
    return moved.float()


def _box_poses(boxes: Boxes3D, world_T_sensor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (M, 4, 4) world_T_box."""
    poses = np.tile(np.eye(4), (len(boxes), 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("z", boxes.yaw.double().numpy()[:, None]).as_matrix()
    poses[:, :3, 3] = boxes.center.double().numpy()
    return world_T_sensor @ poses
