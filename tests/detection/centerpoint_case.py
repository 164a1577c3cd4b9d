"""Reads what OpenPCDet gave for CenterPoint, whatever is there of it and however its parts are numbered and named."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from equilidar.backbones import VoxelResBackBone8x
from equilidar.detection.center_predictions import CenterLayout, CenterPredictions
from equilidar.detection.centerpoint import CenterPoint
from equilidar.detection.openpcdet_keys import load_openpcdet_state
from equilidar.structures import Boxes3D

from .openpcdet_case import Arrays, grid_of, load, state_of

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "detector" / "centerpoint_nuscenes.yaml"
BRANCHES = ("center", "center_z", "dim", "rot", "vel")
_NO_CASES = ("state_dict", "param_grads")
_HEAD = re.compile(r"^heads?[_/]?(\d+)[_/](\w+)")
_NUMBER = re.compile(r"(?:heads?|tasks?)[_/]?(\d+)|(?:^|[_/])(\d+)(?=$|[_/])")


@dataclass
class Folder:
    """A folder of results for one set of weights.

    Attributes:
        path: where it is.
        cases: files with points and a range, by name.
        targets: what is stored of targets and losses, each with the case that it is of.
    """

    path: Path
    cases: dict[str, Arrays]
    targets: list[tuple[Arrays, Arrays]]

    @classmethod
    def read(cls, path: Path) -> "Folder":
        files = {file.stem: load(file) for file in sorted(path.glob("*.npz")) if file.stem not in _NO_CASES}
        cases = {name: one for name, one in files.items() if {"input/points", "meta/point_cloud_range"} <= one.keys()}
        assert cases, f"{path} holds no file with points and a range"
        # Targets beside no points are those of the case with whole head maps, of the first where none is whole.
        main = max(cases.values(), key=lambda case: stored_predictions(case, layout_of(case)) is not None)
        found = [(cases.get(name, main), one) for name, one in files.items() if any(map(_is_target, one))]
        return cls(path, cases, found)

    @property
    def has_weights(self) -> bool:
        return (self.path / "state_dict.npz").is_file()

    def model(self, case: Arrays) -> CenterPoint:
        """Build CenterPoint as configured, with the folder's weights; skips where there are none."""
        config = yaml.safe_load(CONFIG.read_text())
        names = [name for task in config["tasks"] for name in task]
        backbone = VoxelResBackBone8x(grid_of(case), case["input/points"].shape[1])
        built = instantiate(OmegaConf.create(config), _convert_="all")(backbone=backbone, class_names=names)
        load_openpcdet_state(built, state_of(self.path))
        return built.eval()


def _is_target(key: str) -> bool:
    return key.startswith(("targets", "loss")) or key.endswith("gt_boxes10")


def head_maps(case: Arrays) -> dict[int, dict[str, str]]:
    """Return the name under which each map of each head is stored."""
    found: dict[int, dict[str, str]] = {}
    for key in case:
        match = _HEAD.match(key)
        if match and match[2] in (*BRANCHES, "hm"):
            found.setdefault(int(match[1]), {})[match[2]] = match[0]
    return found


def stored_predictions(case: Arrays, layout: CenterLayout) -> CenterPredictions | None:
    """Return the stored maps as predictions, if they are whole."""
    names = head_maps(case)
    whole = [name for head in names.values() for name in head.values()]
    if len(names) != len(layout.tasks) or not all(name in case for name in whole):
        return None
    heads = [{k: torch.from_numpy(case[name]) for k, name in names[number].items()} for number in sorted(names)]
    codes = [torch.cat([head[branch] for branch in BRANCHES], 1) for head in heads]
    return CenterPredictions(torch.cat([head["hm"] for head in heads], 1), torch.stack(codes, 1), layout)


def layout_of(case: Arrays) -> CenterLayout:
    """Return the layout of the configured detector on a case's grid."""
    grid = grid_of(case)
    tasks = yaml.safe_load(CONFIG.read_text())["tasks"]
    _, height, width = grid.shape
    return CenterLayout(grid, (height // 8, width // 8), tuple(tuple(task) for task in tasks), has_velocity=True)


def boxes_of(targets: Arrays) -> Boxes3D:
    """Return the boxes, x, y, z, dx, dy, dz, heading, vx, vy and class from 1, zero rows as padding."""
    name = next((key for key in targets if key.endswith(("gt_boxes10", "gt_boxes"))), None)
    if name is None:
        pytest.skip("no gt_boxes10 among the targets")
    rows = torch.from_numpy(np.ascontiguousarray(targets[name])).float()
    items = []
    for item in rows.reshape(-1, *rows.shape[-2:]):
        item = item[item[:, -1] > 0]
        velocity = torch.cat([item[:, 7:9], item[:, :1] * 0], 1)
        boxes = Boxes3D.make(item[:, :3], item[:, 3:6], item[:, 6], label=item[:, -1].long() - 1, velocity=velocity)
        items.append(boxes)
    return Boxes3D.collate(items)


@dataclass
class HeadTargets:
    """Stored targets of one head; what is not stored is None.

    Attributes:
        index, value: non-zero entries of the heat map, (c, y, x) or (b, c, y, x).
        heatmap: the whole map.
        inds, mask, boxes: of the first slots.
    """

    index: np.ndarray | None = None
    value: np.ndarray | None = None
    heatmap: np.ndarray | None = None
    inds: np.ndarray | None = None
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None


def head_targets(targets: Arrays, num_heads: int) -> dict[int, HeadTargets]:
    """Return the stored targets by head: under names with its number, or along an axis of heads."""
    found: dict[int, HeadTargets] = {}
    for key, array in targets.items():
        if not key.startswith("targets/") or "loss" in key or "gt_boxes" in key:
            continue
        name = key.removeprefix("targets/")
        match = next((found for found in _NUMBER.finditer(name) if int(found[1] or found[2]) < num_heads), None)
        if match:
            bare = name[: match.start()] + name[match.end() :]
            _put(found.setdefault(int(match[1] or match[2]), HeadTargets()), bare.lower(), array)
        elif array.ndim and len(array) == num_heads:
            for number, part in enumerate(array):
                _put(found.setdefault(number, HeadTargets()), name.lower(), part)
    return found


def _put(head: HeadTargets, name: str, array: np.ndarray) -> None:
    if array.ndim == 0 or name.endswith(("shape", "sample_idx", "sample_val")):
        return  # sums, and samples of what is there whole
    if "heatmap" in name or "hm" in name:
        if array.ndim == 2 and np.issubdtype(array.dtype, np.integer):
            head.index = array if array.shape[1] in (3, 4) else array.T
        elif array.ndim == 2 and array.shape[1] == 4:
            head.index, head.value = array[:, :3].astype(np.int64), array[:, 3]
        elif array.ndim == 1 and np.issubdtype(array.dtype, np.floating) and "sample" not in name:
            head.value = array
        elif array.ndim >= 3:
            head.heatmap = array
    elif "mask" in name:
        head.mask = array
    elif "ind" in name:
        head.inds = array
    elif "box" in name and array.ndim > 1:
        head.boxes = array


def stored_losses(targets: Arrays) -> dict[str, float]:
    """Return the losses by OpenPCDet's names: pairs of names and values, or a number under each name."""
    losses: dict[str, float] = {}
    for key, array in targets.items():
        last = key.rsplit("/", 1)[-1]
        if last.endswith("names") and key.removesuffix("names") + "values" in targets:
            values: Any = targets[key.removesuffix("names") + "values"]
            losses |= {str(name): float(value) for name, value in zip(array, values, strict=True)}
        elif re.match(r"(hm_loss|loc_loss|rpn_loss)", last) and array.size == 1:
            losses[last] = array.item()
    return losses


@cache
def read_folder(path: Path) -> Folder:
    return Folder.read(path)
