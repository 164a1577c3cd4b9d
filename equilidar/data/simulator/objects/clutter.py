"""Street furniture and clutter: what looks like a car, a person or a cyclist from afar."""

from collections.abc import Callable

import numpy as np

from equilidar.data.simulator.objects.people import add_bicycle
from equilidar.data.simulator.objects.shape import Shape

Maker = Callable[[np.random.Generator], Shape]


def make_bin(rng: np.random.Generator) -> Shape:
    shape, height = Shape(), float(rng.uniform(0.8, 1.1))
    shape.cylinder((0, 0, height / 2), 0.2, height, 0.2, top=0.27)
    shape.ellipsoid((0, 0, height), (0.27, 0.27, 0.12), 0.15)
    return shape


def make_wheelie_bins(rng: np.random.Generator) -> Shape:
    shape = Shape()
    for i in range(int(rng.integers(1, 4))):
        height, y = float(rng.uniform(0.95, 1.15)), 0.68 * i
        x = float(rng.uniform(-0.1, 0.1))
        shape.prism((x, y, height / 2), (0.5, 0.46, height), 0.2, front=-0.1, rear=-0.06, side=-0.05)
        shape.prism((x, y, height + 0.04), (0.66, 0.58, 0.08), 0.25, front=0.15)
    return shape


def make_hydrant(rng: np.random.Generator) -> Shape:
    shape, height = Shape(), float(rng.uniform(0.65, 0.9))
    shape.cylinder((0, 0, height / 2), 0.12, height, 0.5)
    shape.ellipsoid((0, 0, height), (0.14, 0.14, 0.12), 0.5)
    shape.cylinder((0, 0, height * 0.65), 0.07, 0.42, 0.5, axis="y")
    return shape


def make_bench(rng: np.random.Generator) -> Shape:
    shape, length = Shape(), float(rng.uniform(1.4, 2.2))
    shape.prism((0, 0, 0.44), (0.45, length, 0.06), 0.3)
    shape.prism((-0.24, 0, 0.7), (0.06, length, 0.36), 0.3, angles=(0.0, -0.2, 0.0))
    for y in (length / 2 - 0.2, -length / 2 + 0.2):
        shape.prism((0, y, 0.2), (0.4, 0.08, 0.4), 0.3)
    return shape


def make_bike_rack(rng: np.random.Generator) -> Shape:
    shape = Shape()
    for i in range(int(rng.integers(1, 5))):
        add_bicycle(shape, float(rng.uniform(0.95, 1.05)), y=0.55 * i)
        shape.prism((0.2, 0.55 * i + 0.2, 0.4), (0.6, 0.05, 0.8), 0.4, depth=0.1)
    return shape


def make_motorcycle(rng: np.random.Generator) -> Shape:
    shape = Shape()
    for x in (0.68, -0.65):
        shape.cylinder((x, 0, 0.3), 0.3, 0.14, 0.1, axis="y")
    shape.prism((0.0, 0, 0.6), (0.9, 0.3, 0.5), float(rng.uniform(0.1, 0.5)), front=0.2, rear=0.1)
    shape.prism((-0.35, 0, 0.83), (0.8, 0.28, 0.12), 0.1, rear=0.1)
    shape.rod((0.65, 0, 0.4), (0.42, 0, 1.02), 0.05, 0.3)
    shape.cylinder((0.42, 0, 1.02), 0.025, 0.7, 0.3, axis="y")
    if rng.random() < 0.4:
        shape.prism((-0.72, 0, 1.05), (0.4, 0.42, 0.36), 0.3)
    return shape


def make_bollards(rng: np.random.Generator) -> Shape:
    shape, height = Shape(), float(rng.uniform(0.7, 1.1))
    for i in range(int(rng.integers(2, 6))):
        shape.cylinder((1.4 * i, 0, height / 2), 0.08, height, 0.4)
        shape.cylinder((1.4 * i, 0, height - 0.12), 0.085, 0.08, 1.2)
    return shape


def make_post_box(rng: np.random.Generator) -> Shape:
    shape = Shape()
    if rng.random() < 0.5:
        shape.cylinder((0, 0, 0.75), 0.22, 1.5, 0.5)
        shape.ellipsoid((0, 0, 1.5), (0.24, 0.24, 0.12), 0.5)
    else:
        shape.cylinder((0, 0, 0.45), 0.05, 0.9, 0.3)
        shape.prism((0, 0, 1.2), (0.35, 0.5, 0.7), 0.55, front=0.05)
    return shape


def make_cabinet(rng: np.random.Generator) -> Shape:
    shape = Shape()
    width, height = float(rng.uniform(0.6, 1.6)), float(rng.uniform(1.0, 1.7))
    shape.prism((0, 0, height / 2), (0.4, width, height), 0.4)
    shape.prism((0, 0, height + 0.04), (0.48, width + 0.08, 0.08), 0.4, front=0.1, rear=0.1)
    return shape


def make_ad_column(rng: np.random.Generator) -> Shape:
    shape, height = Shape(), float(rng.uniform(2.4, 3.2))
    shape.cylinder((0, 0, height / 2), float(rng.uniform(0.45, 0.7)), height, 0.4)
    shape.ellipsoid((0, 0, height), (0.75, 0.75, 0.35), 0.3)
    return shape


def make_skip(rng: np.random.Generator) -> Shape:
    """A rubbish skip, the size of a small car."""
    shape = Shape()
    length, height = float(rng.uniform(2.6, 4.0)), float(rng.uniform(1.1, 1.6))
    shape.prism((0, 0, height / 2), (length - 1.0, 1.6, height), 0.3, front=-0.5, rear=-0.5, side=-0.08)
    if rng.random() < 0.6:
        shape.ellipsoid((0.1, 0, height), (length * 0.35, 0.65, 0.4), 0.35)
    return shape


def make_container(rng: np.random.Generator) -> Shape:
    shape, length = Shape(), float(rng.uniform(3.0, 6.1))
    height = float(rng.uniform(1.9, 2.6))
    shape.prism((0, 0, height / 2 + 0.05), (length, float(rng.uniform(1.8, 2.4)), height), 0.45)
    for y in (0.4, -0.4):
        shape.prism((length / 2, y, height / 2), (0.1, 0.06, height * 0.9), 0.5)
    return shape


def make_trailer(rng: np.random.Generator) -> Shape:
    """A parked trailer or caravan: car-sized, wheels, no bonnet."""
    shape = Shape()
    caravan = rng.random() < 0.5
    length, width = float(rng.uniform(2.2, 4.2)), float(rng.uniform(1.5, 2.0))
    height = float(rng.uniform(2.2, 2.6) if caravan else rng.uniform(0.9, 1.7))
    shape.prism((0, 0, (0.45 + height) / 2), (length, width, height - 0.45), 0.5, front=0.15 if caravan else 0.0)
    shape.rod((length / 2, 0, 0.45), (length / 2 + 1.0, 0, 0.45), 0.05, 0.3)
    for y in (width / 2 - 0.1, -width / 2 + 0.1):
        shape.cylinder((-0.1, y, 0.32), 0.32, 0.2, 0.06, axis="y")
    return shape


def make_stump(rng: np.random.Generator) -> Shape:
    """A pollarded trunk: as tall and thick as a person."""
    shape, height = Shape(), float(rng.uniform(1.4, 2.1))
    shape.cylinder((0, 0, height / 2), float(rng.uniform(0.16, 0.26)), height, 0.25, top=float(rng.uniform(0.13, 0.2)))
    shape.ellipsoid((0, 0, height), (0.28, 0.24, 0.2), 0.25)
    if rng.random() < 0.5:
        shape.rod((0, 0, height * 0.7), (0.3, 0.1, height * 1.05), 0.07, 0.25)
    return shape


def make_board(rng: np.random.Generator) -> Shape:
    """A sandwich board in front of a shop."""
    shape, height = Shape(), float(rng.uniform(0.9, 1.3))
    shape.prism((0, 0, height / 2), (0.6, 0.65, height), 0.5, front=0.28, rear=0.28)
    return shape


def make_cones(rng: np.random.Generator) -> Shape:
    shape = Shape()
    for i in range(int(rng.integers(2, 5))):
        x, y = 1.8 * i, float(rng.uniform(-0.3, 0.3))
        shape.prism((x, y, 0.02), (0.4, 0.4, 0.04), 0.2)
        shape.cylinder((x, y, 0.38), 0.15, 0.72, 0.9, top=0.03)
    return shape


def make_barrier(rng: np.random.Generator) -> Shape:
    shape, length = Shape(), float(rng.uniform(1.5, 2.5))
    for x in (length / 2 - 0.1, -length / 2 + 0.1):
        shape.prism((x, 0, 0.5), (0.06, 0.5, 1.0), 0.4, side=0.2)
    for z in (0.55, 0.9):
        shape.prism((0, 0, z), (length, 0.04, 0.18), 1.1)
    return shape


def make_phone_box(rng: np.random.Generator) -> Shape:
    shape, height = Shape(), float(rng.uniform(2.1, 2.5))
    shape.prism((0, 0, height / 2), (0.9, 0.9, height), 0.1, depth=0.8)
    shape.prism((-0.4, 0, height / 2), (0.08, 0.9, height), 0.4)
    shape.prism((0, 0, height), (1.0, 1.0, 0.15), 0.5)
    return shape


def make_bus_shelter(rng: np.random.Generator) -> Shape:
    shape, length = Shape(), float(rng.uniform(2.8, 4.2))
    shape.prism((0, -0.6, 1.2), (length, 0.04, 2.2), 0.1, depth=0.05)
    shape.prism((0, 0, 2.45), (length + 0.2, 1.5, 0.1), 0.4)
    shape.prism((-length / 2, 0, 1.2), (0.12, 1.2, 1.9), 0.7)
    shape.prism((0, -0.35, 0.45), (length * 0.6, 0.35, 0.05), 0.3)
    for x in (length / 2, -length / 2):
        shape.cylinder((x, 0.6, 1.2), 0.05, 2.4, 0.4)
    return shape


def make_pallets(rng: np.random.Generator) -> Shape:
    shape, height = Shape(), float(rng.uniform(0.6, 1.6))
    shape.prism((0, 0, height / 2), (1.2, 0.8, height), 0.35)
    if rng.random() < 0.5:
        shape.prism((0.1, 0.95, height * 0.35), (1.1, 0.9, height * 0.7), 0.35, angles=(0.2, 0.0, 0.0))
    return shape


def make_meter(rng: np.random.Generator) -> Shape:
    """A parking meter or ticket machine on a post."""
    shape, height = Shape(), float(rng.uniform(1.3, 1.8))
    shape.cylinder((0, 0, height / 2), 0.05, height, 0.3)
    shape.prism((0, 0, height - 0.15), (0.22, 0.3, 0.5), 0.3, front=0.06)
    return shape


# Beside the kerb, in the frontage, and instead of a parked car.
FURNITURE: tuple[Maker, ...] = (
    make_bin, make_hydrant, make_bench, make_bike_rack, make_bollards, make_post_box, make_cabinet, make_ad_column,
    make_stump, make_stump, make_phone_box, make_meter, make_motorcycle, make_bus_shelter,
)  # fmt: skip
FRONTAGE: tuple[Maker, ...] = (
    make_bin, make_wheelie_bins, make_bench, make_bike_rack, make_cabinet, make_stump, make_board, make_pallets,
    make_post_box, make_wheelie_bins,
)  # fmt: skip
KERBSIDE: tuple[Maker, ...] = (make_skip, make_container, make_trailer, make_cones, make_barrier, make_motorcycle)
