"""ONCE-shaped sequences that tests write for themselves, out of simulated sweeps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from tests.data.fake_data import write_bin
from tests.data.fake_sequence import CLASS_NAMES, recorded_sweeps

SEQUENCE = "000076"
START = 1_616_343_527_200
STEP = 500

# In ONCE's files x points left and y backward: the vehicle's forward (1, 0, 0) is (0, -1, 0) there.
FILE_T_SENSOR = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def write_once(root: Path, sequence: str = SEQUENCE, num: int = 4, split: str = "raw_small") -> dict[str, Any]:
    """Write a sequence; return the content of its JSON file."""
    sweeps = recorded_sweeps(num)
    first = sweeps[0].world_T_sensor
    frames = []
    for i, sweep in enumerate(sweeps):
        frame_id = str(START + STEP * i)
        xyz = sweep.xyz @ FILE_T_SENSOR[:3, :3].T.astype(np.float32)
        write_bin(
            root / "data" / sequence / "lidar_roof" / f"{frame_id}.bin",
            np.concatenate([xyz, 255 * sweep.intensity[:, None]], 1),
        )
        pose = FILE_T_SENSOR @ np.linalg.inv(first) @ sweep.world_T_sensor @ np.linalg.inv(FILE_T_SENSOR)
        boxes = [
            [*(FILE_T_SENSOR[:3, :3] @ box[:3]), *box[3:6], box[6] - np.pi / 2] for box in sweep.boxes.astype(float)
        ]
        frames.append(
            {
                "sequence_id": sequence,
                "frame_id": frame_id,
                "pose": [*Rotation.from_matrix(pose[:3, :3]).as_quat().tolist(), *pose[:3, 3].tolist()],
                "annos": {"names": [CLASS_NAMES[i] for i in sweep.label], "boxes_3d": boxes, "boxes_2d": {}},
            }
        )
    content = {"meta_info": {"weather": "sunny"}, "calib": {}, "frames": frames}
    write_json(root, content, sequence)
    lists = root / "ImageSets"
    lists.mkdir(exist_ok=True)
    with (lists / f"{split}.txt").open("a") as file:
        file.write(f"{sequence}\n")
    return content


def write_json(root: Path, content: dict[str, Any], sequence: str = SEQUENCE) -> Path:
    path = root / "data" / sequence / f"{sequence}.json"
    path.write_text(json.dumps(content))
    return path
