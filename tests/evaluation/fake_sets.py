"""Small sets in the official formats, written from one description so that a fault is made once for all of them."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather

Frame = tuple[str, int]
"""Drive and number."""


@dataclass(frozen=True)
class Box:
    """Relative to the vehicle: center, length, width, height, yaw from +x."""

    kind: str
    x: float
    y: float
    z: float
    length: float
    width: float
    height: float
    yaw: float
    score: float = 1.0


Boxes = dict[Frame, list[Box]]
FRAMES: tuple[Frame, ...] = (("a", 0), ("a", 1), ("b", 0))


def make_truth(seed: int = 0) -> Boxes:
    """Return cars and pedestrians of three frames of two drives, nowhere symmetric."""
    rng = np.random.default_rng(seed)
    truth: Boxes = {}
    for frame in FRAMES:
        boxes = []
        for index in range(8):
            kind, size = ("car", (4.2, 1.8, 1.5)) if index % 4 else ("pedestrian", (0.9, 0.6, 1.7))
            place = rng.uniform(4, 28), rng.uniform(-14, 25), rng.uniform(-0.4, 0.4)
            boxes.append(Box(kind, *place, *size, rng.uniform(0.3, 1.2)))
        truth[frame] = boxes
    return truth


def make_detections(truth: Boxes, seed: int = 1) -> Boxes:
    """Return one detection near each object."""
    rng = np.random.default_rng(seed)
    return {
        frame: [
            replace(
                box,
                x=box.x + rng.normal(0, 0.05),
                y=box.y + rng.normal(0, 0.05),
                yaw=box.yaw + rng.normal(0, 0.03),
                score=float(rng.uniform(0.2, 0.9)),
            )
            for box in boxes
        ]
        for frame, boxes in truth.items()
    }


def change(boxes: Boxes, how: Callable[[Box], Box]) -> Boxes:
    """Apply `how` to every box."""
    return {frame: [how(box) for box in of_frame] for frame, of_frame in boxes.items()}


def change_first(boxes: Boxes, how: Callable[[Box], Box]) -> Boxes:
    """Apply `how` to one box only."""
    frame = next(iter(boxes))
    return boxes | {frame: [how(boxes[frame][0]), *boxes[frame][1:]]}


def write_kitti(folder: Path, truth: Boxes, found: Boxes) -> tuple[Path, Path]:
    names = {"car": "Car", "pedestrian": "Pedestrian"}
    for side, boxes in (("gt", truth), ("det", found)):
        (folder / side).mkdir()
        for number, (_, of_frame) in enumerate(sorted(boxes.items())):
            rows = []
            for box in of_frame:
                place = f"{box.x} {box.height / 2 - box.z} {box.y} {-box.yaw}"
                size = f"{box.height} {box.width} {box.length}"
                row = f"{names.get(box.kind, box.kind)} 0 0 0.1 100 100 200 200 {size} {place}"
                rows.append(row + (f" {box.score}" if side == "det" else ""))
            (folder / side / f"{number:06d}.txt").write_text("".join(row + "\n" for row in rows))
    return folder / "gt", folder / "det"


def write_nuscenes(folder: Path, truth: Boxes, found: Boxes) -> tuple[Path, Path]:
    for side, name, boxes in (("gt", "gt", truth), ("det", "results", found)):
        content = {name: {f"{d}-{n}": [_nuscenes_box(f"{d}-{n}", b, side) for b in bs] for (d, n), bs in boxes.items()}}
        (folder / f"{side}.json").write_text(json.dumps(content | {"meta": {}}))
    return folder / "gt.json", folder / "det.json"


def _nuscenes_box(token: str, box: Box, side: str) -> dict:
    result = {
        "sample_token": token,
        "translation": [500 + box.x, 900 + box.y, box.z],
        "size": [box.width, box.length, box.height],
        "rotation": [math.cos(box.yaw / 2), 0, 0, math.sin(box.yaw / 2)],
        "velocity": [1.0, None if box.kind == "car" else 0.5],
        "detection_name": box.kind,
        "detection_score": box.score,
        "attribute_name": "vehicle.moving" if box.kind == "car" else "",
    }
    return result | ({"ego_translation": [box.x, box.y, box.z], "num_pts": 5} if side == "gt" else {})


def write_waymo(folder: Path, truth: Boxes, found: Boxes) -> tuple[Path, Path]:
    kinds = {"car": 1, "pedestrian": 2}
    columns = {}
    for side, boxes in (("gt", truth), ("pred", found)):
        rows = [(f"{d}/{n}", box) for (d, n), of_frame in boxes.items() for box in of_frame]
        columns[f"{side}_frame"] = np.array([name for name, _ in rows])
        columns[f"{side}_type"] = np.array([kinds.get(box.kind, 9) for _, box in rows], np.uint8)
        columns[f"{side}_box"] = np.array(
            [[b.x, b.y, b.z, b.length, b.width, b.height, b.yaw] for _, b in rows], np.float32
        )
        if side == "gt":
            columns["gt_difficulty"] = np.zeros(len(rows), np.uint8)
            columns["gt_num_points"] = np.full(len(rows), 7, np.int32)
            columns["gt_speed"] = np.ones((len(rows), 2), np.float32)
        else:
            columns["pred_score"] = np.array([box.score for _, box in rows], np.float32)
            columns["pred_overlap_nlz"] = np.zeros(len(rows), np.bool_)
    np.savez(folder / "both.npz", **columns)
    return folder / "both.npz", folder / "both.npz"


def write_argoverse2(folder: Path, truth: Boxes, found: Boxes) -> tuple[Path, Path]:
    names = {"car": "REGULAR_VEHICLE", "pedestrian": "PEDESTRIAN"}
    for side, boxes in (("gt", truth), ("det", found)):
        rows = [(frame, box) for frame, of_frame in boxes.items() for box in of_frame]
        columns = {
            "log_id": [f"log-{drive}" for (drive, _), _ in rows],
            "timestamp_ns": [1000 + number for (_, number), _ in rows],
            "category": [names.get(box.kind, box.kind.upper()) for _, box in rows],
            **{f"t{axis}_m": [getattr(box, axis) for _, box in rows] for axis in "xyz"},
            **{f"{name}_m": [getattr(box, name) for _, box in rows] for name in ("length", "width", "height")},
            "qw": [math.cos(box.yaw / 2) for _, box in rows],
            "qx": [0.0] * len(rows),
            "qy": [0.0] * len(rows),
            "qz": [math.sin(box.yaw / 2) for _, box in rows],
        }
        columns |= {"score": [b.score for _, b in rows]} if side == "det" else {"num_interior_pts": [9] * len(rows)}
        pyarrow.feather.write_feather(pa.table(columns), folder / f"{side}.feather")
    return folder / "gt.feather", folder / "det.feather"


WRITERS = {
    "kitti": write_kitti,
    "nuscenes": write_nuscenes,
    "waymo": write_waymo,
    "argoverse2": write_argoverse2,
}


def write_flow(folder: Path, estimate: Callable[[np.ndarray], np.ndarray] = lambda flow: flow) -> tuple[Path, Path]:
    """Write two examples as the official folders of feather files; flows hold no ego motion."""
    rng = np.random.default_rng(0)
    for name in ("log-a/1.feather", "log-b/2.feather"):
        category = rng.integers(0, 31, 200).astype(np.uint8)
        flags = {key: rng.random(200) < 0.9 for key in ("is_close", "is_valid")}
        moves = {"is_dynamic": (category > 0) & (rng.random(200) < 0.7)}
        flow = (rng.normal(0, 0.1, (200, 3)) + np.array([0.8, 0.3, 0])) * moves["is_dynamic"][:, None]
        for side, values, more in (
            ("gt", flow, {"category_indices": category, **flags, **moves}),
            ("det", estimate(flow), moves),
        ):
            path = folder / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            motion = {f"flow_t{axis}_m": values[:, i].astype(np.float16) for i, axis in enumerate("xyz")}
            pyarrow.feather.write_feather(pa.table({**motion, **more}), path)
    return folder / "gt", folder / "det"
