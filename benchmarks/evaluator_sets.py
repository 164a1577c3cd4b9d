"""Made-up files for the evaluators' benchmark, in the official formats."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather

from equilidar.evaluation.argoverse2_boxes import COMPETITION_CATEGORIES
from equilidar.evaluation.nuscenes_boxes import ATTRIBUTES, CLASSES


@dataclass(frozen=True, slots=True)
class MadeUpSet:
    """A benchmark's size and how its files are written.

    Attributes:
        frames: frames of the whole set.
        unit: what they are called.
        content: what one of them holds.
        peer: the official tool.
        write: writes the files of so many frames into a folder.
    """

    frames: int
    unit: str
    content: str
    peer: str
    write: Callable[[Path, int, np.random.Generator], None]


def _frame(rng: np.random.Generator, truths: int, others: int, kinds: int, reach: float) -> tuple[np.ndarray, ...]:
    """Return (N, 8) kind, x, y, z, length, width, height, yaw of objects, and of detections with scores (N, 9).

    Each object is detected twice, near and nearer; the rest is clutter.
    """
    truth = np.column_stack(
        [
            rng.integers(0, kinds, truths),
            rng.uniform(-reach, reach, (truths, 2)),
            rng.normal(0, 0.3, truths),
            rng.uniform([3.5, 1.5, 1.4], [5, 2.2, 2], (truths, 3)),
            rng.uniform(-np.pi, np.pi, truths),
        ]
    )
    near, nearer = (truth + rng.normal(0, 1, truth.shape) * spread for spread in (0.3, 0.08))
    for found in (near, nearer):
        found[:, 0] = truth[:, 0]
        found[:, 4:7] = truth[:, 4:7] * rng.uniform(0.9, 1.1, (truths, 3))
    clutter = truth[rng.integers(0, truths, others - 2 * truths)].copy()
    clutter[:, 1:3] = rng.uniform(-reach, reach, (len(clutter), 2))
    score = np.concatenate([rng.beta(4, 4, truths), rng.beta(6, 3, truths), rng.beta(1, 5, len(clutter))])
    return truth, np.column_stack([np.concatenate([near, nearer, clutter]), score])


def _write_nuscenes(folder: Path, frames: int, rng: np.random.Generator) -> None:
    with (folder / "gt.json").open("w") as gt, (folder / "det.json").open("w") as det:
        gt.write('{"gt": {')
        det.write('{"meta": {"use_lidar": true}, "results": {')
        for index in range(frames):
            token = f"{index:032x}"
            for file, boxes in zip((gt, det), _frame(rng, 30, 200, len(CLASSES), 28.0), strict=True):
                file.write(
                    f'{", " if index else ""}"{token}": {json.dumps([_nuscenes_box(token, b, rng) for b in boxes])}'
                )
        gt.write("}}")
        det.write("}}")


def _nuscenes_box(token: str, box: np.ndarray, rng: np.random.Generator) -> dict:
    kind, x, y, z, length, width, height, yaw = (float(value) for value in box[:8])
    score = float(box[8]) if len(box) > 8 else -1.0
    return {
        "sample_token": token,
        "translation": [600 + x, 1600 + y, z],
        "size": [width, length, height],
        "rotation": [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))],
        "velocity": [0.1 * x, 0.1 * y],
        "ego_translation": [x, y, z],
        "num_pts": 10 if score < 0 else -1,
        "detection_name": CLASSES[int(kind)],
        "detection_score": score,
        "attribute_name": "" if CLASSES[int(kind)] in ("barrier", "traffic_cone") else ATTRIBUTES[int(10 * length) % 8],
    }


def _write_waymo(folder: Path, frames: int, rng: np.random.Generator) -> None:
    from waymo_open_dataset.protos.metrics_pb2 import Objects

    with (folder / "gt.bin").open("wb") as gt, (folder / "det.bin").open("wb") as det:
        for index in range(frames):
            for file, boxes in zip((gt, det), _frame(rng, 20, 60, 4, 70.0), strict=True):
                objects = Objects()
                for box in boxes:
                    item = objects.objects.add(context_name=f"{index // 198:020d}", frame_timestamp_micros=index)
                    label = item.object
                    label.type = int(box[0]) + 1
                    label.num_lidar_points_in_box = 3 + int(20 * box[4])
                    place = label.box
                    place.center_x, place.center_y, place.center_z, place.length, place.width, place.height = box[1:7]
                    place.heading = box[7]
                    label.metadata.speed_x = abs(box[1]) / 10
                    item.score = box[8] if len(box) > 8 else 1.0
                # Messages of repeated fields may be concatenated.
                file.write(objects.SerializeToString())


def _write_argoverse2(folder: Path, frames: int, rng: np.random.Generator) -> None:
    for side, (name, last) in enumerate((("gt", "num_interior_pts"), ("det", "score"))):
        rng = np.random.default_rng(1)
        parts = [_frame(rng, 80, 300, len(COMPETITION_CATEGORIES), 100.0)[side] for _ in range(frames)]
        boxes = np.concatenate(parts)
        frame = np.repeat(np.arange(frames), [len(part) for part in parts])
        columns = {
            "log_id": pa.array([f"log-{index // 156:04d}" for index in frame.tolist()]),
            "timestamp_ns": 315_000_000_000_000_000 + frame * 100_000_000,
            "category": pa.array([COMPETITION_CATEGORIES[kind] for kind in boxes[:, 0].astype(int)]),
            **{key: boxes[:, 1 + number] for number, key in enumerate(("tx_m", "ty_m", "tz_m"))},
            **{key: boxes[:, 4 + number] for number, key in enumerate(("length_m", "width_m", "height_m"))},
            "qw": np.cos(boxes[:, 7] / 2),
            "qx": np.zeros(len(boxes)),
            "qy": np.zeros(len(boxes)),
            "qz": np.sin(boxes[:, 7] / 2),
            last: boxes[:, 8] if side else np.full(len(boxes), 10),
        }
        pyarrow.feather.write_feather(pa.table(columns), folder / f"{name}.feather")


def _write_scene_flow(folder: Path, frames: int, rng: np.random.Generator) -> None:
    num = 60_000
    for index in range(frames):
        flow = rng.normal(0, 0.3, (num, 3)) * (rng.random((num, 1)) < 0.1)
        found = flow + rng.normal(0, 0.05, flow.shape)
        moves = np.linalg.norm(flow, axis=1) > 0.05
        flags = {
            "category_indices": np.where(moves, 19, rng.integers(0, 2, num) * 17).astype(np.uint8),
            "is_close": rng.random(num) < 0.6,
            "is_dynamic": moves,
            "is_valid": rng.random(num) < 0.98,
        }
        for side, values, more in (("gt", flow, flags), ("det", found, {"is_dynamic": moves})):
            path = folder / side / f"log-{index // 31:04d}" / f"{index}.feather"
            path.parent.mkdir(parents=True, exist_ok=True)
            motion = {f"flow_t{axis}_m": values[:, i].astype(np.float16) for i, axis in enumerate("xyz")}
            pyarrow.feather.write_feather(pa.table(more | motion), path)


SETS = {
    "nuscenes": MadeUpSet(6019, "samples", "200 detections and 30 ground truths", "nuscenes-devkit", _write_nuscenes),
    "waymo": MadeUpSet(39987, "frames", "60 detections and 20 ground truths", "(needs TensorFlow)", _write_waymo),
    "argoverse2": MadeUpSet(2340, "sweeps", "300 detections and 80 ground truths", "av2", _write_argoverse2),
    "scene_flow": MadeUpSet(465, "examples", "60000 points", "av2", _write_scene_flow),
}
