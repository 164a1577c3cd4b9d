"""Cars, vans and trucks: bodies whose bonnet, windscreen and tail tell which way they face."""

import numpy as np

from equilidar.data.simulator.objects.shape import Shape

GLASS_DEPTH = 1.6
# Panes return nothing of their own: rays are lost in the cabin or go through to what is behind.
GLASS = 0.0
TYRE = 0.06


def _paint(rng: np.random.Generator) -> float:
    """Return the reflectance of a body: dark and silver cars are more frequent than white ones."""
    return float(rng.choice([0.05, 0.12, 0.3, 0.55, 0.75], p=[0.25, 0.2, 0.25, 0.15, 0.15]) * rng.uniform(0.8, 1.2))


def _wheels(shape: Shape, base: float, half_width: float, radius: float, width: float, shift: float) -> None:
    for x in (base / 2 + shift, -base / 2 + shift):
        for y in (half_width - width / 2, -half_width + width / 2):
            shape.cylinder((x, y, radius), radius, width, TYRE, axis="y")
            shape.cylinder((x, y, radius), radius * 0.6, width + 0.01, 0.5, axis="y")


def _lamps_and_plates(shape: Shape, length: float, half_width: float, height: float) -> None:
    """Retro-reflecting tail lamps and plates, white at the front, wider at the rear."""
    shape.prism((-length / 2 + 0.03, 0.0, height * 0.8), (0.06, 0.5, 0.11), 1.5)
    for y in (half_width - 0.16, -half_width + 0.16):
        shape.prism((-length / 2 + 0.05, y, height), (0.1, 0.2, 0.28), 1.1)
        shape.prism((length / 2 - 0.09, y, height * 0.92), (0.18, 0.3, 0.14), 0.6)


def make_car(rng: np.random.Generator) -> Shape:
    """Build a hatchback, saloon, estate, off-roader or small car with sizes spread as KITTI's."""
    kind = str(rng.choice(["hatchback", "saloon", "estate", "suv", "small"], p=[0.32, 0.24, 0.18, 0.14, 0.12]))
    mean = {
        "hatchback": (4.0, 1.66, 1.47),
        "saloon": (4.45, 1.70, 1.43),
        "estate": (4.5, 1.70, 1.48),
        "suv": (4.45, 1.80, 1.70),
        "small": (3.45, 1.56, 1.48),
    }[kind]
    length, width, height = (value * float(rng.normal(1.0, 0.035)) for value in mean)
    paint, half = _paint(rng), width / 2 - 0.07
    clearance = 0.2 if kind != "suv" else 0.28
    bonnet = length * {"hatchback": 0.22, "saloon": 0.26, "estate": 0.24, "suv": 0.24, "small": 0.17}[kind]
    boot = length * (0.17 if kind == "saloon" else 0.02)
    sill, belt, top = height * 0.45, height * 0.63, height * 0.96
    shape = Shape()
    shape.prism((0, 0, (clearance + sill) / 2), (length, 2 * half, sill - clearance), paint, front=0.06, rear=0.04)
    # Bonnet, falling towards the front; cabin waist behind it.
    shape.prism(
        (length / 2 - bonnet / 2 - 0.05, 0, (sill + belt) / 2 - 0.03),
        (bonnet, 2 * half - 0.06, belt - sill - 0.06),
        paint,
        front=bonnet * rng.uniform(0.35, 0.6),
    )
    waist = length - bonnet - 0.1
    shape.prism(
        (-length / 2 + 0.05 + waist / 2, 0, (sill + belt) / 2), (waist, 2 * half, belt - sill), paint, side=0.03
    )
    # Greenhouse of glass under a solid roof, over seats.
    cabin = waist - boot
    middle = -length / 2 + 0.05 + boot + cabin / 2
    front, side = rng.uniform(0.55, 0.85), rng.uniform(0.1, 0.18)
    rear = {"hatchback": 0.4, "saloon": 0.55, "estate": 0.25, "suv": 0.2, "small": 0.22}[kind] * rng.uniform(0.8, 1.3)
    size = (cabin, 2 * half - 0.06, top - belt)
    shape.prism((middle, 0, (belt + top) / 2), size, GLASS, front=front, rear=rear, side=side, depth=GLASS_DEPTH)
    shape.prism((middle, 0, belt + 0.02), (cabin * 0.8, 2 * half - 0.3, 0.04), 0.2)
    for x in (0.1, -0.22):
        for y in (0.35, -0.35):
            shape.prism((middle + x * cabin, y, belt + 0.18), (0.14, 0.44, 0.34), 0.15, front=0.06)
    roof = cabin - front - rear
    shape.prism(
        (middle + (rear - front) / 2, 0, (top + height) / 2), (roof, size[1] - 2 * side, height - top), paint,
        front=0.08, rear=0.08, side=0.06,
    )  # fmt: skip
    if kind == "saloon":
        shape.prism((-length / 2 + 0.05 + boot / 2, 0, belt + 0.03), (boot, 2 * half - 0.1, 0.06), paint, rear=0.06)
    radius = 0.3 if kind != "suv" else 0.36
    _wheels(shape, length * 0.6, half, radius, 0.2, length * 0.01)
    for y in (width / 2 - 0.08, -width / 2 + 0.08):
        shape.prism((length / 2 - bonnet - 0.35, y, belt + 0.06), (0.1, 0.16, 0.13), paint)
    _lamps_and_plates(shape, length, half, sill + 0.1)
    return shape


def make_van(rng: np.random.Generator) -> Shape:
    """Build a delivery van or a people carrier: tall body, short sloped nose."""
    length, width = rng.normal(5.0, 0.35), rng.normal(1.92, 0.06)
    height = float(rng.choice([1.95, 2.25, 2.6]) * rng.normal(1.0, 0.03))
    paint, half = _paint(rng), width / 2 - 0.09
    nose, belt = rng.uniform(0.65, 0.95), 1.15
    body = length - nose
    panels = rng.random() < 0.6
    shape = Shape()
    shape.prism((0, 0, 0.45), (length, 2 * half, 0.5), paint, front=0.06)
    shape.prism((-nose / 2, 0, (0.7 + belt) / 2), (body, 2 * half, belt - 0.7), paint)
    shape.prism((length / 2 - nose / 2, 0, 0.85), (nose, 2 * half - 0.08, 0.3), paint, front=nose * 0.55)
    cab = min(1.3, body * 0.35)
    rest = body - cab
    x = -length / 2 + rest + cab / 2
    slope = rng.uniform(0.5, 0.8)
    shape.prism(
        (x, 0, (belt + height - 0.1) / 2), (cab, 2 * half - 0.04, height - 0.1 - belt), GLASS,
        front=slope, side=0.08, depth=GLASS_DEPTH,
    )  # fmt: skip
    shape.prism((x - slope / 2, 0, height - 0.06), (cab - slope, 2 * half - 0.2, 0.1), paint, front=0.05)
    shape.prism((x - 0.1, 0, belt + 0.2), (0.2, 1.2, 0.5), 0.15)
    shape.prism(
        (-length / 2 + rest / 2, 0, (belt + height) / 2), (rest, 2 * half - 0.02, height - belt),
        paint if panels else GLASS, rear=0.06, side=0.08, depth=0.0 if panels else GLASS_DEPTH,
    )  # fmt: skip
    _wheels(shape, length * 0.6, half, 0.34, 0.22, 0.05)
    for y in (width / 2 - 0.09, -width / 2 + 0.09):
        shape.prism((length / 2 - nose - 0.25, y, belt + 0.15), (0.12, 0.18, 0.3), 0.1)
    _lamps_and_plates(shape, length, half, 0.9)
    return shape


def make_truck(rng: np.random.Generator) -> Shape:
    """Build a rigid lorry: a cab, a gap and a box, platform or tank."""
    length, width = rng.uniform(6.2, 10.0), rng.normal(2.45, 0.06)
    height = rng.uniform(2.9, 3.7)
    half, paint = width / 2 - 0.1, _paint(rng)
    cab, cab_height = rng.uniform(1.7, 2.2), rng.uniform(2.5, 2.95)
    load = length - cab - 0.35
    x = -length / 2 + load / 2
    shape = Shape()
    shape.prism((0, 0, 0.8), (length - 0.1, 0.9, 0.3), 0.1)
    front = length / 2 - cab / 2
    shape.prism((front, 0, 0.95), (cab, 2 * half, 1.1), paint, front=0.05)
    shape.prism((front, 0, 1.9), (cab, 2 * half - 0.04, 0.8), GLASS, front=rng.uniform(0.1, 0.35), side=0.05, depth=1.2)
    shape.prism(
        (front - 0.15, 0, (2.3 + cab_height) / 2), (cab - 0.3, 2 * half - 0.15, cab_height - 2.3), paint, front=0.2
    )
    shape.prism((front - cab / 2 + 0.1, 0, 1.9), (0.15, 2 * half - 0.05, 0.9), paint)
    body = rng.random()
    if body < 0.65:
        shape.prism((x, 0, (1.05 + height) / 2), (load, 2 * half + 0.1, height - 1.05), _paint(rng) + 0.15)
    elif body < 0.85:
        shape.prism((x, 0, 1.15), (load, 2 * half, 0.2), 0.2)
        for y in (half - 0.03, -half + 0.03):
            shape.prism((x, y, 1.5), (load, 0.06, 0.5), 0.3)
        shape.prism(
            (x - load * 0.1, 0, 1.6), (load * rng.uniform(0.3, 0.7), 1.6, 0.8), 0.35, front=0.4, rear=0.5, side=0.4
        )
    else:
        shape.cylinder((x, 0, 2.0), min(half, 1.0), load, 0.6, angles=(0.0, float(np.pi / 2), 0.0))
    axles = [length / 2 - cab * 0.6, -length / 2 + 1.1] + ([-length / 2 + 2.4] if length > 8.0 else [])
    for axle in axles:
        for y in (half - 0.14, -half + 0.14):
            shape.cylinder((axle, y, 0.5), 0.5, 0.28, TYRE, axis="y")
    for y in (width / 2 - 0.1, -width / 2 + 0.1):
        shape.prism((length / 2 - 0.2, y, 2.0), (0.15, 0.2, 0.5), 0.1)
    shape.prism((-length / 2 + 0.06, 0, 0.75), (0.1, 1.8, 0.2), 0.9)
    return shape
