"""Lets vehicles, cyclists and pedestrians into a scene."""

import numpy as np

from equilidar.data.simulator.layout import LANE, Layout, Street
from equilidar.data.simulator.objects.people import make_cyclist, make_pedestrian
from equilidar.data.simulator.objects.shape import Shape
from equilidar.data.simulator.objects.vehicles import make_car, make_truck, make_van
from equilidar.data.simulator.population import Population
from equilidar.data.simulator.traffic import HORIZON, Profile, along, drive_profile, phases, ticks

WALK_FROM, WALK_TO = 1.35, 2.05  # metres beyond the kerb where people walk


def _vehicle(rng: np.random.Generator) -> tuple[Shape, str]:
    draw = rng.random()
    if draw < 0.76:
        return make_car(rng), "Car"
    if draw < 0.9:
        return make_van(rng), "Van"
    return make_truck(rng), "Truck"


def _wobble(rng: np.random.Generator, amplitude: float) -> np.ndarray:
    """Return a slow drift to the left and right over the ticks."""
    return amplitude * np.sin(2 * np.pi * ticks() / rng.uniform(5, 12) + rng.uniform(0, 2 * np.pi))


def add_traffic(
    population: Population,
    rng: np.random.Generator,
    layout: Layout,
    profile: Profile,
    shift: float,
    density: float | int,
) -> None:
    """Add vehicles on the route, before, behind and against the ego vehicle, on the branches, and queues there.

    Args:
        population: what is there.
        rng: draws them.
        layout: the streets.
        profile: the motion of the ego vehicle's lane.
        shift: the ego vehicle's place in it, seconds.
        density: factor of their number.
    """
    if density <= 0:
        return
    route = layout.streets[0]
    time = shift + float(rng.uniform(1.8, 7.0)) / density
    while time < profile.time[-1]:
        _drive(population, rng, route, profile, time, -LANE / 2)
        time += (1.8 + float(rng.exponential(4.0))) / density
    time = shift - float(rng.uniform(1.8, 6.0)) / density
    while time > 0:
        _drive(population, rng, route, profile, time, -LANE / 2)
        time -= (1.8 + float(rng.exponential(5.0))) / density
    oncoming = drive_profile(route, LANE / 2, float(rng.uniform(6.0, 13.5)))
    time = -HORIZON + float(rng.uniform(0, 4))
    while time < oncoming.time[-1]:
        if oncoming.at(np.array([time]))[0] > -60:
            _drive(population, rng, route, oncoming, time, LANE / 2)
        time += (2.0 + float(rng.exponential(4.5))) / density
    for street in layout.streets[1:]:
        leaving = drive_profile(street, -LANE / 2, float(rng.uniform(5, 11)))
        time = leaving.time_at(12.0) + float(rng.exponential(3.0))
        while time < leaving.time[-1]:
            _drive(population, rng, street, leaving, time, -LANE / 2)
            time += (2.0 + float(rng.exponential(6.0))) / density
        _queue(population, rng, street, density)


def _drive(
    population: Population, rng: np.random.Generator, street: Street, profile: Profile, shift: float, lateral: float
) -> None:
    shape, semantic = _vehicle(rng)
    offset = lateral + float(rng.normal(0, 0.12)) + _wobble(rng, 0.08)
    path = along(street, profile, shift, offset, reverse=lateral > 0)
    population.move(shape, semantic, path, margin=0.25)


def _queue(population: Population, rng: np.random.Generator, street: Street, density: float | int) -> None:
    """Let vehicles wait to enter the route."""
    station = float(street.gaps[0, 1]) + 1.5
    for _ in range(int(rng.poisson(1.0 * density))):
        shape, semantic = _vehicle(rng)
        station += 3.2 if semantic != "Truck" else 5.0
        x, y, yaw = street.point(station, LANE / 2 + float(rng.normal(0, 0.1)))
        place = (x, y, yaw + np.pi + float(rng.normal(0, 0.02)))
        population.stand(shape, semantic, place, margin=0.3)
        station += float(rng.uniform(3.2, 4.5))


def add_cyclists(population: Population, rng: np.random.Generator, layout: Layout, density: float | int) -> None:
    """Add cyclists at the side of the lanes and now and then on the pavement."""
    for street in layout.streets:
        for side in (-1, 1):
            for _ in range(int(rng.poisson(density * street.length / 22.0))):
                # Many places are taken: a second try each.
                if not _cycle(population, rng, street, side):
                    _cycle(population, rng, street, side)


def _cycle(population: Population, rng: np.random.Generator, street: Street, side: int) -> bool:
    pavement = rng.random() < 0.25
    lateral = street.half_width + float(rng.uniform(WALK_FROM, WALK_TO)) if pavement else LANE - 0.25
    profile = _constant(street, float(rng.uniform(2.5, 6.0)))
    shift = float(rng.uniform(0, profile.time[-1]))
    path = along(street, profile, shift, side * lateral + _wobble(rng, 0.06), reverse=side > 0)
    return population.move(make_cyclist(rng), "Cyclist", path, phases(path, 4.5), margin=0.12)


def _constant(street: Street, speed: float) -> Profile:
    return Profile(np.array([0.0, street.length / speed]), np.array([0.0, street.length]))


def add_crossers(population: Population, rng: np.random.Generator, layout: Layout, density: float | int) -> None:
    """Add people who cross a street where nothing comes."""
    time = ticks()
    for street in layout.streets:
        for _ in range(int(rng.poisson(density * street.length / 30.0))):
            station = float(rng.uniform(0, street.length))
            if not population.near(*street.point(station, 0.0)[:2]):
                continue
            speed, side = float(rng.uniform(0.9, 1.8)), float(rng.choice([-1, 1]))
            begin = side * (street.half_width + 1.8)
            # They stand, cross at some time, and stand again.
            walked = np.clip((time - float(rng.uniform(-8.0, HORIZON - 4))) * speed, 0.0, 2 * abs(begin))
            stations = np.full(len(time), station) + 0.15 * walked
            x, y, yaw = street.at(stations, begin - side * walked)
            path = np.stack([x, y, yaw - side * np.pi / 2 + side * 0.15], 1)
            population.move(make_pedestrian(rng), "Pedestrian", path, phases(path, 1.45), margin=0.5)


def add_walkers(population: Population, rng: np.random.Generator, layout: Layout, density: float | int) -> None:
    """Add people on the pavements, walking or standing, alone or in groups."""
    for street in layout.streets:
        for side in (-1, 1):
            for _ in range(int(rng.poisson(density * street.length / 13.0))):
                group = int(rng.choice([1, 2, 3, 4], p=[0.6, 0.25, 0.1, 0.05]))
                if rng.random() < 0.3:
                    _stand(population, rng, street, side, group)
                else:
                    _walk(population, rng, street, side, group)


def _walk(population: Population, rng: np.random.Generator, street: Street, side: int, group: int) -> None:
    profile = _constant(street, float(rng.uniform(0.7, 1.8)))
    speed = street.length / float(profile.time[-1])
    reverse = bool(rng.random() < 0.5)
    shift = float(rng.uniform(0, profile.time[-1]))
    lateral = street.half_width + float(rng.uniform(WALK_FROM, WALK_TO))
    for member in range(group):
        # Two abreast, the next two behind.
        offset = side * (lateral + (0.85 if member % 2 else 0.0)) + _wobble(rng, 0.05)
        late = (member // 2) * 1.2 / speed + float(rng.uniform(0, 0.2))
        path = along(street, profile, shift - late, offset, reverse)
        phase = phases(path, 1.45) + float(rng.uniform(0, 2 * np.pi))
        population.move(make_pedestrian(rng), "Pedestrian", path, phase, margin=0.04)


def _stand(population: Population, rng: np.random.Generator, street: Street, side: int, group: int) -> None:
    """Let people stand about, in a circle where they are several."""
    station = float(rng.uniform(0, street.length))
    if not population.near(*street.point(station, 0.0)[:2]):
        return
    lateral = side * (street.half_width + float(rng.uniform(0.5, 2.4)))
    x, y, _ = street.point(station, lateral)
    start = float(rng.uniform(0, 2 * np.pi))
    for member in range(group):
        angle = start + 2 * np.pi * member / group
        radius = 0.0 if group == 1 else 0.65 + 0.1 * group
        place = np.array([x + radius * np.cos(angle), y + radius * np.sin(angle), angle + np.pi])
        path = np.repeat(place[None], len(ticks()), 0)
        sway = 2 * np.pi * ticks() / 4.0 + float(rng.uniform(0, 2 * np.pi))
        population.move(make_pedestrian(rng, walking=False), "Pedestrian", path, sway, margin=0.04)
