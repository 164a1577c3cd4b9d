"""Buildings, walls, fences, poles, signs and plants."""

import numpy as np

from equilidar.data.simulator.objects.shape import Shape

LEAVES, BARK = 0.35, 0.25


def make_building(rng: np.random.Generator, length: float, depth: float) -> Shape:
    """Build a house: x along the street, front towards +y, with a roof, a porch, bays, balconies and steps."""
    shape, height = Shape(), float(rng.uniform(3.0, 11.0))
    wall = float(rng.choice([0.25, 0.4, 0.55]))
    shape.prism((0, 0, height / 2), (length, depth, height), wall)
    if rng.random() < 0.7:
        slope = depth / 2 * 0.97
        shape.prism((0, 0, height + 1.5), (length + 0.4, depth + 0.6, 3.0), 0.2, side=slope)
    front = depth / 2
    for x in np.arange(-length / 2 + 1.6, length / 2 - 1.4, float(rng.uniform(2.4, 3.6))):
        # Windows are recessed in reality: here frames and sills stand out, and panes let rays in.
        shape.prism((float(x), front + 0.03, 1.75), (1.2, 0.12, 1.3), 0.08)
        shape.prism((float(x), front + 0.1, 1.05), (1.4, 0.24, 0.08), 0.5)
    draw = rng.random()
    x = float(rng.uniform(-length / 3, length / 3))
    if draw < 0.3:
        shape.prism((x, front + 0.55, 1.3), (2.0, 1.1, 2.6), wall)
        shape.prism((x, front + 0.6, 2.75), (2.3, 1.4, 0.3), 0.3, side=0.2)
    elif draw < 0.55:
        shape.prism((x, front + 0.5, 0.18), (1.8, 1.0, 0.36), 0.4)
        shape.prism((x, front + 0.3, 0.4), (1.8, 0.6, 0.4), 0.4)
        for y in (front + 0.9, front + 0.2):
            shape.cylinder((x - 0.85, y, 0.8), 0.03, 1.0, 0.4)
    elif draw < 0.75 and height > 5:
        shape.prism((x, front + 0.6, 3.1), (2.6, 1.2, 0.2), 0.4)
        shape.prism((x, front + 1.15, 3.6), (2.6, 0.08, 0.9), 0.4, depth=0.1)
    return shape


def make_wall(rng: np.random.Generator, length: float) -> Shape:
    shape, height = Shape(), float(rng.uniform(0.5, 2.2))
    shape.prism((0, 0, height / 2), (length, 0.22, height), 0.4)
    shape.prism((0, 0, height + 0.04), (length, 0.32, 0.08), 0.45)
    for x in (length / 2, -length / 2):
        shape.prism((x, 0, height / 2 + 0.1), (0.4, 0.4, height + 0.2), 0.4)
    return shape


def make_fence(rng: np.random.Generator, length: float) -> Shape:
    """Build a mesh, picket or rail fence: rays pass between."""
    shape, height = Shape(), float(rng.uniform(0.8, 1.9))
    if rng.random() < 0.3:
        for z in (height * 0.45, height * 0.8):
            shape.prism((0, 0, z), (length, 0.06, 0.14), 0.5)
    else:
        shape.prism((0, 0, height / 2), (length, 0.04, height), 0.35, depth=float(rng.uniform(0.04, 0.14)))
    for x in np.linspace(-length / 2, length / 2, max(2, int(length / 2.5))):
        shape.cylinder((float(x), 0, height / 2), 0.04, height + 0.1, 0.35)
    return shape


def make_hedge(rng: np.random.Generator, length: float) -> Shape:
    shape, height = Shape(), float(rng.uniform(0.7, 2.0))
    width = float(rng.uniform(0.6, 1.4))
    shape.prism((0, 0, height / 2), (length, width, height), LEAVES, side=0.1, front=0.1, rear=0.1, depth=0.15)
    for _ in range(3):
        x, top = float(rng.uniform(-0.4, 0.4)) * length, float(rng.uniform(0.85, 1.0)) * height
        shape.ellipsoid((x, 0, top), (0.8, width * 0.55, 0.3), LEAVES, depth=0.15)
    return shape


def make_pole(rng: np.random.Generator) -> Shape:
    """Build a street lamp, traffic light or telegraph pole; its arm points to +y."""
    shape, kind = Shape(), rng.random()
    if kind < 0.55:
        height = float(rng.uniform(5.0, 8.0))
        shape.cylinder((0, 0, height / 2), float(rng.uniform(0.06, 0.11)), height, 0.45, top=0.05)
        shape.cylinder((0, 0, 0.5), 0.13, 1.0, 0.4)
        shape.rod((0, 0, height - 0.1), (0, 1.4, height + 0.2), 0.05, 0.45)
        shape.prism((0, 1.6, height + 0.2), (0.25, 0.7, 0.12), 0.5)
    elif kind < 0.8:
        shape.cylinder((0, 0, 1.6), 0.07, 3.2, 0.4)
        shape.prism((0.12, 0, 2.85), (0.25, 0.3, 0.9), 0.15)
        shape.prism((0, 0.14, 1.2), (0.2, 0.16, 0.3), 0.6)
    else:
        height = float(rng.uniform(7.0, 9.0))
        shape.cylinder((0, 0, height / 2), 0.16, height, 0.3, top=0.11)
    return shape


def make_sign(rng: np.random.Generator) -> Shape:
    """Build a traffic sign that faces +x (retro-reflecting)."""
    shape, height = Shape(), float(rng.uniform(2.1, 2.7))
    shape.cylinder((0, 0, height / 2), 0.03, height, 0.4)
    kind = rng.random()
    if kind < 0.5:
        shape.cylinder((0.045, 0, height - 0.3), 0.3, 0.03, 2.5, axis="x")
    elif kind < 0.85:
        shape.prism((0.045, 0, height - 0.35), (0.03, float(rng.uniform(0.4, 0.8)), 0.6), 2.2)
    else:
        shape.prism((0.045, 0, height - 0.2), (0.03, 1.3, 0.35), 2.2)
        shape.cylinder((0, 0.5, height / 2), 0.03, height, 0.4)
    return shape


def make_tree(rng: np.random.Generator, low: float = 3.9) -> Shape:
    """Build a broad-leaved tree, dense or sparse, whose crown begins above `low` metres."""
    shape, height = Shape(), low + float(rng.uniform(2.5, 6.0))
    trunk, fork = float(rng.uniform(0.1, 0.3)), low - float(rng.uniform(0.0, 0.8))
    shape.cylinder((0, 0, fork / 2), trunk, fork, BARK, top=trunk * 0.75)
    for _ in range(int(rng.integers(2, 4))):
        x, y = rng.uniform(-0.9, 0.9, 2)
        shape.rod((0, 0, fork - 0.2), (float(x), float(y), fork + 1.5), trunk * 0.4, BARK)
    depth = float(rng.choice([0.5, 0.9, 2.5], p=[0.45, 0.4, 0.15]))
    crown = float(rng.uniform(1.2, 2.2))
    for _ in range(int(rng.integers(2, 5))):
        x, y = (float(v) for v in rng.uniform(-0.7, 0.7, 2) * crown)
        r = float(rng.uniform(0.6, 1.0)) * crown
        z = float(rng.uniform(low + 0.7 * r, max(low + 0.8 * r, height)))
        shape.ellipsoid((x, y, z), (r, r, 0.7 * r), LEAVES, depth=depth)
    return shape


def make_conifer(rng: np.random.Generator) -> Shape:
    """Build a conifer whose branches reach down to the ground."""
    shape, height = Shape(), float(rng.uniform(2.5, 8.0))
    shape.cylinder((0, 0, 0.5), 0.12, 1.0, BARK)
    radius = float(rng.uniform(0.15, 0.22)) * height
    shape.cylinder((0, 0, height / 2 + 0.15), radius, height - 0.3, LEAVES, top=0.1, depth=0.35)
    return shape


def make_bush(rng: np.random.Generator) -> Shape:
    """Build a bush between the size of a crouching person and of a small car."""
    shape, size = Shape(), float(rng.uniform(0.4, 1.2))
    for _ in range(int(rng.integers(2, 5))):
        x, y = (float(v) for v in rng.uniform(-0.6, 0.6, 2) * size)
        r = float(rng.uniform(0.45, 0.8)) * size
        shape.ellipsoid((x, y, r * 0.85), (r, r, r * float(rng.uniform(0.8, 1.3))), LEAVES, depth=0.25)
    return shape
