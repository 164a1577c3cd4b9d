"""Simulated sweeps that are broken in one way: what a reader of the user's own might hand over."""

import dataclasses
from typing import Any

import torch

from equilidar.data.simulator import SimulatedSweeps
from equilidar.structures import Boxes3D, LabelledSweep, Sweep

FAULTS = ("no_boxes", "empty_sweep", "nan_points", "outside", "unseen_class", "boxes_outside", "many_boxes", "nan_box")


class BrokenSweeps(SimulatedSweeps):
    """The simulator's sweeps, all or one (the second) of them broken.

    Args:
        fault: of FAULTS.
        settings: of the simulator.
    """

    def __init__(self, fault: str, **settings: Any) -> None:
        super().__init__(**settings)
        assert fault in FAULTS
        self.fault = fault

    def __getitem__(self, index: int) -> LabelledSweep:
        item = super().__getitem__(index)
        boxes, sweep = item.boxes, item.sweep
        if self.fault == "no_boxes":
            return LabelledSweep(sweep, Boxes3D.empty())
        if self.fault == "unseen_class":
            return LabelledSweep(sweep, boxes.select(boxes.label == 0))
        if self.fault == "outside":
            return LabelledSweep(_with(sweep, xyz=sweep.xyz + 1000.0), boxes)
        if self.fault == "boxes_outside":
            return LabelledSweep(sweep, dataclasses.replace(boxes, center=boxes.center + 1000.0))
        if self.fault == "many_boxes":
            rows = torch.arange(len(boxes)).repeat(1 + 600 // max(len(boxes), 1))
            return LabelledSweep(sweep, boxes.rows(rows, torch.tensor([0, len(rows)])))
        if index == 1:
            return _one(self.fault, sweep, boxes)
        return item


def _one(fault: str, sweep: Sweep, boxes: Boxes3D) -> LabelledSweep:
    if fault == "empty_sweep":
        return LabelledSweep(_with(sweep, xyz=sweep.xyz[:0], features=sweep.features[:0]), Boxes3D.empty())
    if fault == "nan_points":
        xyz = sweep.xyz.clone()
        xyz[3, 1] = torch.nan
        return LabelledSweep(_with(sweep, xyz=xyz), boxes)
    center = boxes.center.clone()
    center[0, 2] = torch.nan
    return LabelledSweep(sweep, dataclasses.replace(boxes, center=center))


def _with(sweep: Sweep, **changes: Any) -> Sweep:
    return dataclasses.replace(sweep, **changes)
