"""nuScenes tables of two scenes in the official layout, with bicycles in a rack, gaps and unknown attributes."""

import json
import math
from pathlib import Path

import numpy as np

SCENES = ("scene-0103", "scene-0916", "scene-0061")
CATEGORIES = (
    "vehicle.car",
    "vehicle.bicycle",
    "human.pedestrian.adult",
    "movable_object.trafficcone",
    "animal",
    "static_object.bicycle_rack",
)
ATTRIBUTES = ("vehicle.moving", "cycle.without_rider", "pedestrian.standing")
SAMPLES_PER_SCENE = 4


def write_tables(folder: Path) -> Path:
    """Write the version folder v1.0-mini and return it."""
    rng = np.random.default_rng(0)
    tables: dict[str, list[dict]] = {
        "attribute": [{"token": f"attribute-{name}", "name": name, "description": ""} for name in ATTRIBUTES],
        "category": [{"token": f"category-{name}", "name": name, "description": ""} for name in CATEGORIES],
        "sensor": [
            {"token": f"sensor-{channel}", "channel": channel, "modality": kind}
            for channel, kind in (("LIDAR_TOP", "lidar"), ("CAM_FRONT", "camera"))
        ],
        "calibrated_sensor": [
            {"token": f"calibrated-{channel}", "sensor_token": f"sensor-{channel}", "translation": [0, 0, 1.8]}
            | {"rotation": [1, 0, 0, 0], "camera_intrinsic": []}
            for channel in ("LIDAR_TOP", "CAM_FRONT")
        ],
        "log": [{"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": ""}],
        **{name: [] for name in ("map", "visibility", "scene", "sample", "sample_data", "ego_pose", "instance")},
        "sample_annotation": [],
    }
    for number, name in enumerate(SCENES):
        _add_scene(tables, number, name, rng)
    version = folder / "v1.0-mini"
    version.mkdir(parents=True)
    for name, records in tables.items():
        (version / f"{name}.json").write_text(json.dumps(records, indent=0))
    return version


def _add_scene(tables: dict[str, list[dict]], number: int, name: str, rng: np.random.Generator) -> None:
    tokens = [f"sample-{number}-{index}" for index in range(SAMPLES_PER_SCENE)]
    links = _links(tokens)
    tables["scene"].append(
        {"token": f"token-{name}", "log_token": "log", "nbr_samples": len(tokens), "first_sample_token": tokens[0]}
        | {"last_sample_token": tokens[-1], "name": name, "description": ""}
    )
    # The third gap is longer than a velocity is estimated over.
    times = np.array([0.0, 0.5, 1.0, 4.5]) + 1000 * number
    for index, token in enumerate(tokens):
        stamp = int(1e6 * times[index])
        tables["sample"].append({"token": token, "timestamp": stamp, "scene_token": f"token-{name}"} | links[index])
        for channel, is_key in (("LIDAR_TOP", True), ("LIDAR_TOP", False), ("CAM_FRONT", True)):
            pose = f"pose-{token}-{channel}-{is_key}"
            tables["sample_data"].append(
                {"token": f"data-{token}-{channel}-{is_key}", "sample_token": token, "ego_pose_token": pose}
                | {"calibrated_sensor_token": f"calibrated-{channel}", "timestamp": stamp, "fileformat": "pcd"}
                | {"is_key_frame": is_key, "height": 0, "width": 0, "filename": "", "prev": "", "next": ""}
            )
            offset = 0.0 if (channel, is_key) == ("LIDAR_TOP", True) else 30.0
            place = [400.0 + 3 * index + offset, 900.0, 0.0]
            tables["ego_pose"].append(
                {"token": pose, "timestamp": stamp, "rotation": [1, 0, 0, 0], "translation": place}
            )
    for category in CATEGORIES:
        for copy in range(3):
            _add_instance(tables, f"{number}-{category}-{copy}", category, tokens, rng)


def _add_instance(
    tables: dict[str, list[dict]], name: str, category: str, tokens: list[str], rng: np.random.Generator
) -> None:
    own = tokens if rng.random() < 0.7 else tokens[1:2]
    annotations = [f"annotation-{name}-{token}" for token in own]
    links = _links(annotations)
    tables["instance"].append(
        {"token": f"instance-{name}", "category_token": f"category-{category}", "nbr_annotations": len(own)}
        | {"first_annotation_token": annotations[0], "last_annotation_token": annotations[-1]}
    )
    is_rack, yaw = "rack" in category, rng.uniform(-3, 3)
    start = np.array([400.0, 900.0, 0.5]) + rng.uniform(-25, 25, 3) * [1, 1, 0]
    if is_rack or "bicycle" in category:
        # Bicycles stand where racks do, some just outside.
        start = np.array([410.0 + 8 * int(name[-1]), 905.0, 0.5]) + (
            0 if is_rack else rng.uniform(-2, 2, 3) * [1, 1, 0]
        )
        yaw = 0.4
    suited = {"vehicle.car": 0, "vehicle.bicycle": 1, "human.pedestrian.adult": 2}
    for index, (token, sample) in enumerate(zip(annotations, own, strict=True)):
        attribute = [f"attribute-{ATTRIBUTES[suited[category]]}"] if category in suited and rng.random() < 0.8 else []
        tables["sample_annotation"].append(
            {"token": token, "sample_token": sample, "instance_token": f"instance-{name}", "visibility_token": ""}
            | {"attribute_tokens": attribute, "translation": (start + (0 if is_rack else index * 0.7)).tolist()}
            | {"size": [1.5, 3.0, 1.6], "rotation": [math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)]}
            | {"num_lidar_pts": int(rng.integers(0, 3)), "num_radar_pts": int(rng.integers(0, 2))}
            | links[index]
        )


def _links(tokens: list[str]) -> list[dict[str, str]]:
    padded = ["", *tokens, ""]
    return [{"prev": padded[index], "next": padded[index + 2]} for index in range(len(tokens))]


def make_submission(version: Path, scenes: tuple[str, ...]) -> dict:
    """Return detections near the annotations of some scenes, and some clutter."""
    rng = np.random.default_rng(1)
    read = {
        name: json.loads((version / f"{name}.json").read_text()) for name in ("scene", "sample", "sample_annotation")
    }
    chosen = {record["token"] for record in read["scene"] if record["name"] in scenes}
    names = {
        "car": "vehicle.moving",
        "bicycle": "cycle.without_rider",
        "adult": "pedestrian.standing",
        "trafficcone": "",
    }
    results: dict[str, list[dict]] = {r["token"]: [] for r in read["sample"] if r["scene_token"] in chosen}
    for record in read["sample_annotation"]:
        kind = record["instance_token"].split("-")[2].split(".")[-1]
        if record["sample_token"] not in results or kind not in names:
            continue
        for spread in (0.3, 6.0):
            yaw = 2 * math.atan2(record["rotation"][3], record["rotation"][0]) + rng.normal(0, 0.2)
            results[record["sample_token"]].append(
                {
                    "sample_token": record["sample_token"],
                    "translation": (np.array(record["translation"]) + rng.normal(0, spread, 3) * [1, 1, 0]).tolist(),
                    "size": (np.array(record["size"]) * rng.uniform(0.9, 1.1, 3)).tolist(),
                    "rotation": [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)],
                    "velocity": rng.normal(0, 1, 2).tolist(),
                    "detection_name": {"adult": "pedestrian", "trafficcone": "traffic_cone"}.get(kind, kind),
                    "detection_score": float(rng.random()),
                    "attribute_name": names[kind],
                }
            )
    return {"meta": {"use_lidar": True}, "results": results}
