import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.flow import FlowEstimator, GridFlow, RigidFlow, check_label_free, settings_of
from equilidar.structures import SweepPair, SweepPairBatch

from .pairs import moved, rigid_matrix, sweep_pair
from .street import PARKED, WALLS, Thing, street_pair

CAR = Thing((-6.0, 2.0), shift=(1.3, 0.0))
VAN = Thing((8.0, -3.0), (5.5, 2.0, 2.3), math.pi, (-0.9, 0.1), 0.03)
WALKER = Thing((2.0, 7.0), (0.5, 0.6, 1.75), 0.0, (0.05, -0.16))
STREET = (*WALLS, *PARKED, CAR, VAN, WALKER)
FIRST_MOVER = len(WALLS) + len(PARKED)


def errors(pair: SweepPair, estimator: FlowEstimator | None = None) -> torch.Tensor:
    field = (estimator or GridFlow())(SweepPairBatch.collate([pair]))
    assert field.valid.float().mean() > 0.99 and field.flow.isfinite().all()
    return (field.flow - pair.flow).norm(dim=1)


def test_movers_are_found_and_what_rests_has_the_ego_motion():
    pair, owner = street_pair(STREET, rigid_matrix(0.02, (-0.8, 0.1, 0.0)), seed=3)
    error = errors(pair)
    feet = pair.source.xyz[:, 2] < -1.6
    for row in range(FIRST_MOVER, len(STREET)):
        assert error[(owner == row) & ~feet].mean() < 0.05, STREET[row]
    assert error[owner < FIRST_MOVER].max() < 1e-4
