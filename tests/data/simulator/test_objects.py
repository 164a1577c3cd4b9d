"""Sizes of objects."""

from collections.abc import Callable

import numpy as np
import pytest

from equilidar.data.simulator.objects.people import make_cyclist, make_pedestrian
from equilidar.data.simulator.objects.shape import Shape
from equilidar.data.simulator.objects.vehicles import make_car, make_truck, make_van
from equilidar.data.simulator.primitives import object_bounds


@pytest.mark.parametrize(
    ("make", "kitti"),
    [
        (make_car, (3.9, 1.6, 1.56)),
        (make_van, (5.0, 1.9, 2.2)),
        (make_truck, (8.5, 2.6, 3.3)),
        (make_pedestrian, (0.8, 0.6, 1.73)),
        (make_cyclist, (1.76, 0.6, 1.73)),
    ],
)
def test_sizes_are_like_kittis_and_vary(
    make: Callable[[np.random.Generator], Shape], kitti: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(0)
    rows = [make(rng).rows() for _ in range(60)]
    sizes = np.array([np.subtract(*object_bounds(parts)[::-1]) for parts in rows])
    np.testing.assert_allclose(sizes.mean(0), kitti, rtol=0.35)
    assert np.all(sizes.std(0) > 0.01)
    assert min(len(parts) for parts in rows) >= 8  # no bare cuboids
