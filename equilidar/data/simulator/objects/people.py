"""Pedestrians and cyclists with limbs that swing about hips, knees, shoulders and elbows."""

import numpy as np

from equilidar.data.simulator.objects.shape import RIGID, Hinge, Hinges, Shape

NO_SECOND: Hinge = RIGID[1]
HALF_TURN = float(np.pi)


def _leg(
    shape: Shape, hip: tuple[float, float, float], length: float, girth: float, swing: float, phase: float
) -> None:
    x, y, z = hip
    thigh: Hinge = (x, y, z, -0.08, swing, phase)
    # The knee only bends backwards, most while the leg swings forwards.
    knee: Hinge = (x, y, z - length * 0.5, 0.28 if swing > 0.1 else 0.03, 0.28 if swing > 0.1 else 0.0, phase + 1.6)
    upper: Hinges = (thigh, NO_SECOND)
    lower: Hinges = (thigh, knee)
    shape.cylinder((x, y, z - length * 0.25), girth * 0.8, length * 0.5, 0.25, top=girth, hinges=upper)
    shape.cylinder((x, y, z - length * 0.73), girth * 0.55, length * 0.46, 0.25, top=girth * 0.75, hinges=lower)
    shape.prism((x + 0.06, y, z - length * 0.96), (0.26, 0.09, 0.08), 0.15, front=0.08, hinges=lower)


def _arm(shape: Shape, top: tuple[float, float, float], length: float, swing: float, phase: float, bend: float) -> None:
    x, y, z = top
    shoulder: Hinge = (x, y, z, 0.0, swing, phase)
    elbow: Hinge = (x, y, z - length * 0.48, -bend, 0.0, 0.0)
    shape.cylinder((x, y, z - length * 0.24), 0.042, length * 0.5, 0.35, top=0.052, hinges=(shoulder, NO_SECOND))
    shape.cylinder((x, y, z - length * 0.72), 0.033, length * 0.5, 0.35, top=0.042, hinges=(shoulder, elbow))


def make_pedestrian(rng: np.random.Generator, walking: bool = True) -> Shape:
    """Build a person, now and then a child, with a rucksack, a long coat, a bag or a pushchair.

    Args:
        rng: draws size and variant.
        walking: legs and arms swing; otherwise they hang almost still.
    """
    height = float(rng.normal(1.28, 0.1) if rng.random() < 0.1 else np.clip(rng.normal(1.73, 0.08), 1.5, 1.98))
    stout, cloth = float(rng.uniform(0.85, 1.25)), float(rng.choice([0.1, 0.3, 0.5, 0.7]))
    swing = float(rng.uniform(0.35, 0.55)) if walking else 0.03
    leg, hip = height * 0.5, 0.09 * stout
    shoulder, scale = height * 0.82, height / 1.73
    shape = Shape()
    for side, phase in ((1, 0.0), (-1, HALF_TURN)):
        _leg(shape, (0.0, side * hip, leg), leg, 0.08 * stout * scale, swing, phase)
        bend = float(rng.uniform(0.1, 0.5))
        _arm(
            shape,
            (0.0, side * (0.19 * stout * scale + 0.04), shoulder),
            height * 0.4,
            swing * 0.8,
            phase + HALF_TURN,
            bend,
        )
    trunk = shoulder - leg
    radii = (0.125 * stout * scale, 0.195 * stout * scale, trunk * 0.62)
    shape.ellipsoid((0.0, 0.0, leg + trunk * 0.5), radii, cloth, angles=(0.0, float(rng.uniform(0.0, 0.12)), 0.0))
    shape.cylinder((0.0, 0.0, shoulder + height * 0.025), 0.055, height * 0.07, 0.5)
    shape.ellipsoid((0.02, 0.0, height * 0.93), (0.1, 0.08, height * 0.07), 0.4)
    extra = rng.random()
    if extra < 0.2:
        shape.prism((-0.2, 0.0, shoulder - 0.22), (0.2, 0.3, 0.42), 0.3, rear=0.08)
    elif extra < 0.35:
        shape.cylinder((0.0, 0.0, leg - 0.08), 0.22 * stout, 0.5, cloth, top=0.16 * stout)
    elif extra < 0.5:
        shape.prism((0.02, -0.32, leg - 0.05), (0.35, 0.1, 0.28), 0.2)
    elif extra < 0.56 and walking:
        shape.prism((0.75, 0.0, 0.6), (0.7, 0.42, 0.35), 0.2, front=-0.1, rear=0.15)
        shape.rod((0.15, 0.0, 1.0), (0.55, 0.0, 0.55), 0.02, 0.3)
        for x in (0.5, 1.0):
            for y in (0.2, -0.2):
                shape.cylinder((x, y, 0.12), 0.12, 0.04, 0.1, axis="y")
    return shape


def add_bicycle(shape: Shape, scale: float = 1.0, y: float = 0.0, grip: float = 0.28) -> None:
    """Add a bicycle without rider, centred at x = 0; `grip` is half the width of its handlebar."""
    for x in (0.53, -0.53):
        # Spoked: most rays pass.
        shape.cylinder((x * scale, y, 0.34), 0.34, 0.045, 0.25, axis="y", depth=0.06)
    metal = 0.35
    seat, head, crank = (-0.16 * scale, y, 0.88), (0.38 * scale, y, 0.85), (-0.03 * scale, y, 0.3)
    rear, front = (-0.53 * scale, y, 0.34), (0.53 * scale, y, 0.34)
    for start, stop in ((crank, seat), (crank, head), (seat, head), (rear, seat), (rear, crank), (front, head)):
        shape.rod(start, stop, 0.02, metal)
    shape.rod(head, (0.36 * scale, y, 1.02), 0.018, metal)
    shape.cylinder((0.36 * scale, y, 1.03), 0.016, 2 * grip, metal, axis="y")
    shape.prism((-0.2 * scale, y, 0.93), (0.26, 0.14, 0.06), 0.1, front=0.1)


def make_cyclist(rng: np.random.Generator) -> Shape:
    """Build a rider on a bicycle, upright or bent forward, now and then with a basket or a rucksack."""
    scale, stout = float(rng.uniform(0.95, 1.08)), float(rng.uniform(0.85, 1.15))
    lean, cloth = float(rng.uniform(0.25, 0.8)), float(rng.choice([0.15, 0.4, 0.7]))
    shape = Shape()
    grip = float(rng.uniform(0.2, 0.33))
    add_bicycle(shape, scale, grip=grip)
    hip_x, hip_z = -0.18 * scale, 0.98
    trunk = 0.56 * scale
    top_x, top_z = hip_x + trunk * np.sin(lean), hip_z + trunk * np.cos(lean)
    middle = ((hip_x + top_x) / 2, 0.0, (hip_z + top_z) / 2)
    shape.ellipsoid(middle, (0.13 * stout, 0.19 * stout, trunk * 0.62), cloth, angles=(0.0, lean, 0.0))
    shape.ellipsoid((top_x + 0.08, 0.0, top_z + 0.18), (0.12, 0.09, 0.13), 0.5)
    for side, phase in ((1, 0.0), (-1, HALF_TURN)):
        y = side * 0.1
        thigh: Hinge = (hip_x, y, hip_z, -0.95, 0.38, phase)
        knee: Hinge = (hip_x, y, hip_z - 0.42 * scale, 1.15, 0.35, phase - 0.9)
        shape.cylinder(
            (hip_x, y, hip_z - 0.21 * scale),
            0.065 * stout,
            0.42 * scale,
            0.25,
            top=0.085 * stout,
            hinges=(thigh, NO_SECOND),
        )
        shape.cylinder((hip_x, y, hip_z - 0.62 * scale), 0.045, 0.4 * scale, 0.25, top=0.06, hinges=(thigh, knee))
        shape.prism((hip_x + 0.05, y, hip_z - 0.84 * scale), (0.25, 0.09, 0.07), 0.15, hinges=(thigh, knee))
        shape.rod((top_x, side * 0.21, top_z - 0.05), (0.36 * scale, side * (grip - 0.03), 1.05), 0.042, 0.35)
    extra = rng.random()
    if extra < 0.25:
        shape.prism((middle[0] - 0.2, 0.0, middle[2] + 0.08), (0.2, 0.3, 0.4), 0.3, angles=(0.0, lean, 0.0))
    elif extra < 0.45:
        shape.prism((0.58 * scale, 0.0, 0.85), (0.3, 0.36, 0.25), 0.3, front=-0.05, depth=0.3)
    elif extra < 0.6:
        for side in (1, -1):
            shape.prism((-0.55 * scale, side * 0.14, 0.62), (0.34, 0.14, 0.32), 0.2)
    return shape
