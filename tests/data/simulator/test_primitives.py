"""Rays through solids, against membership in the solid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.data.simulator.objects.people import make_pedestrian
from equilidar.data.simulator.objects.shape import Shape
from equilidar.data.simulator.primitives import (
    CYLINDER,
    ELLIPSOID,
    PRISM,
    intersect,
    object_bounds,
    place_parts,
)

size = st.floats(0.2, 2.0)
inset = st.floats(-0.3, 0.9)
coordinate = st.floats(-4.0, 4.0)


def inside(kind: int, dims: np.ndarray, xyz: np.ndarray, slack: float) -> np.ndarray:
    """Tell which points lie in a solid grown by `slack` (an independent definition)."""
    x, y, z = xyz.T
    if kind == ELLIPSOID:
        return (x / dims[0]) ** 2 + (y / dims[1]) ** 2 + (z / dims[2]) ** 2 <= 1 + slack
    share = (z + dims[2]) / (2 * dims[2])
    level = np.abs(z) <= dims[2] + slack
    if kind == CYLINDER:
        return level & (np.hypot(x, y) <= dims[0] + (dims[1] - dims[0]) * share + slack)
    ahead, behind = dims[0] - dims[3] * share, -dims[0] + dims[4] * share
    return level & (x <= ahead + slack) & (x >= behind - slack) & (np.abs(y) <= dims[1] - dims[5] * share + slack)


def solids() -> st.SearchStrategy[tuple[int, np.ndarray]]:
    prism = st.tuples(size, size, size, inset, inset, inset).map(
        lambda d: (PRISM, np.array([d[0], d[1], d[2], d[3] * d[0], d[4] * d[0], d[5] * d[1]]))
    )
    cylinder = st.tuples(size, st.floats(0.01, 2.0), size).map(lambda d: (CYLINDER, np.array([*d, 0.0, 0.0, 0.0])))
    ellipsoid = st.tuples(size, size, size).map(lambda d: (ELLIPSOID, np.array([*d, 0.0, 0.0, 0.0])))
    return st.one_of(prism, cylinder, ellipsoid)


@settings(max_examples=300, deadline=None)
@given(solid=solids(), origin=st.tuples(coordinate, coordinate, coordinate), seed=st.integers(0, 1000))
def test_a_line_is_inside_between_entry_and_exit_only(
    solid: tuple[int, np.ndarray], origin: tuple[float, float, float], seed: int
) -> None:
    kind, dims = solid
    aim = np.random.default_rng(seed).uniform(-1.0, 1.0, 3) - np.array(origin)
    if np.linalg.norm(aim) < 1e-3:
        return
    direction = aim / np.linalg.norm(aim)
    t_in, t_out, cos = intersect(kind, dims, *origin, *direction)
    t = np.linspace(-15, 15, 3001)
    points = np.array(origin) + t[:, None] * direction
    within = (t > t_in) & (t < t_out)
    assert np.all(inside(kind, dims, points[within], 1e-6))
    assert not np.any(inside(kind, dims, points[(t < t_in - 1e-3) | (t > t_out + 1e-3)], -1e-2))
    if t_in <= t_out:
        assert -1e-9 <= cos <= 1 + 1e-9


def test_cosine_is_that_of_the_surface() -> None:
    # A ball met off centre: the sine of the incidence is the offset over the radius.
    _, _, cos = intersect(ELLIPSOID, np.array([1.0, 1.0, 1.0, 0, 0, 0]), -5.0, 0.6, 0.0, 1.0, 0.0, 0.0)
    assert cos == pytest.approx(0.8)
    # A windscreen that leans back by 45 degrees, met horizontally.
    _, _, cos = intersect(PRISM, np.array([1.0, 1.0, 0.5, 1.0, 0, 0]), 5.0, 0.0, 0.1, -1.0, 0.0, 0.0)
    assert cos == pytest.approx(np.sqrt(0.5))


def test_bounds_hold_all_surface_points_at_all_phases() -> None:
    rng = np.random.default_rng(0)
    rows = make_pedestrian(rng).rows()
    low, high = object_bounds(rows)
    owner = np.zeros(len(rows), dtype=np.int64)
    for phase in np.linspace(0, 2 * np.pi, 7):
        rotation, center = place_parts(rows, owner, np.array([[0.0, 0.0, 0.0, 0.0, phase]]))
        for row, turn, middle in zip(rows, rotation, center, strict=True):
            local = rng.uniform(-1, 1, (300, 3)) * 1.2
            kept = local[inside(int(row[0]), row[1:7], local, 0.0)]
            world = kept @ turn.T + middle
            assert np.all(world > low - 0.01)
            assert np.all(world < high + 0.01)


def test_hinges_turn_about_their_pivot() -> None:
    shape = Shape()
    hinge = (0.0, 0.0, 1.0, 0.0, np.pi / 2, 0.0)
    shape.cylinder((0.0, 0.0, 0.5), 0.1, 1.0, 0.5, hinges=(hinge, (0.0,) * 6))
    _, center = place_parts(shape.rows(), np.zeros(1, dtype=np.int64), np.array([[2.0, 3.0, 0.0, 0.0, np.pi / 2]]))
    # At phase 90 degrees it has turned by 90 degrees about y: what hung half a metre below now points backwards.
    np.testing.assert_allclose(center, [[2.0 - 0.5, 3.0, 1.0]], atol=1e-12)
