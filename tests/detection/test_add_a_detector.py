"""The example of docs/detectors.md is a whole detector: built, trained, decoded and checked like all others."""

import re
from pathlib import Path

import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.detection.detector import Detector
from equilidar.structures import Boxes3D

from .test_second import GRID, NAMES, scene

PAGE = Path(__file__).resolve().parents[2] / "docs" / "detectors.md"


@pytest.fixture
def detector() -> Detector:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    exec(compile(code, str(PAGE), "exec"), names)
    torch.manual_seed(0)
    backbone = VoxelBackBone8x(GRID, 4, width=0.25)
    return names["OnePerCell"](backbone, NAMES, name="Car", size=(4.0, 1.7, 1.5), z=-0.9)


def test_the_example_trains_and_finds(detector: Detector) -> None:
    points, boxes = scene()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(detector.loss(detector(points), boxes).total())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]
    with torch.no_grad():
        found = detector.decode(detector(points))
    cars = boxes.select(boxes.label == NAMES.index("Car"))
    assert set(found.boxes.label.tolist()) == {NAMES.index("Car")}
    near = torch.cdist(cars.center[:, :2], found.boxes.center[:, :2]).min(1).values
    assert (near < 1.2).all()  # within a cell of 1.6 m


def test_the_example_names_a_broken_box_and_takes_none(detector: Detector) -> None:
    points, boxes = scene()
    predictions = detector(points)
    detector.loss(predictions, Boxes3D.empty(2)).total().backward()
    boxes.size[0] = float("nan")
    with pytest.raises(ValueError, match="sweep a has a box"):
        detector.loss(predictions, boxes, keys=("a", "b"))
