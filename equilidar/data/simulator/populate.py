"""Fills streets with what stands and what moves."""

from dataclasses import dataclass

import numpy as np

from equilidar.data.simulator.ground import make_ground
from equilidar.data.simulator.layout import LANE, PARKING, Layout, Street, make_layout
from equilidar.data.simulator.movers import add_crossers, add_cyclists, add_traffic, add_walkers
from equilidar.data.simulator.objects.clutter import FRONTAGE, FURNITURE, KERBSIDE
from equilidar.data.simulator.objects.street import (
    make_building,
    make_bush,
    make_conifer,
    make_fence,
    make_hedge,
    make_pole,
    make_sign,
    make_tree,
    make_wall,
)
from equilidar.data.simulator.objects.vehicles import make_car, make_truck, make_van
from equilidar.data.simulator.population import Population
from equilidar.data.simulator.scene import Scene, ground_below
from equilidar.data.simulator.traffic import along, drive_profile

FRONT = 2.8  # metres from the kerb to where gardens and houses begin


@dataclass(frozen=True)
class SceneOptions:
    """How full and how rough scenes are; 1 is a busy European street.

    Attributes:
        parked: factor of parked vehicles.
        traffic: factor of moving vehicles.
        people: factor of pedestrians.
        cyclists: factor of cyclists.
        clutter: factor of street furniture and clutter.
        roughness: factor of the ground's unevenness.
    """

    parked: float = 1.0
    traffic: float = 1.0
    people: float = 1.0
    cyclists: float = 1.0
    clutter: float = 1.0
    roughness: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 3:
                raise ValueError(f"scene option {name} must lie in 0..3, got {value}")


def make_scene(seed: int, sequence: int, options: SceneOptions | None = None) -> Scene:
    """Build a scene.

    Args:
        seed: of the data set, not negative.
        sequence: number of the scene, not negative.
        options: how full it is.
    """
    options = SceneOptions() if options is None else options
    rng = np.random.default_rng(np.random.SeedSequence([seed, sequence, 0]))
    layout = make_layout(rng)
    ground = make_ground(*layout.segments(), rng, roughness=options.roughness)
    route = layout.streets[0]
    cruise = float(rng.uniform(5.0, 13.5) if rng.random() > 0.06 else rng.uniform(1.0, 3.0))
    profile = drive_profile(route, -LANE / 2, cruise)
    shift = profile.time_at(layout.start)
    ego = along(route, profile, shift, -LANE / 2, False)
    population = Population(ground, ego)
    for street in layout.streets:
        for side in (1, -1):
            _park(population, rng, street, side, options)
            _furnish(population, rng, street, side, options)
            _build(population, rng, street, side, options)
    add_traffic(population, rng, layout, profile, shift, options.traffic)
    add_cyclists(population, rng, layout, options.cyclists)
    add_crossers(population, rng, layout, options.people)
    add_walkers(population, rng, layout, options.people)
    z = ground_below(ground, ego[:, :2])
    return population.scene(seed, sequence, np.concatenate([ego[:, :2], z[:, None], ego[:, 2:]], 1))


def _place(street: Street, station: float, lateral: float, turn: float = 0.0) -> tuple[float, float, float]:
    x, y, yaw = street.at(np.array([station]), lateral)
    return float(x[0]), float(y[0]), float(yaw[0]) + turn


def _facing(side: int) -> float:
    """Return the turn that lets an object beside the road show its +y side to the road."""
    return np.pi if side > 0 else 0.0


def _park(population: Population, rng: np.random.Generator, street: Street, side: int, options: SceneOptions) -> None:
    if street.parking[0 if side < 0 else 1] == 0.0:
        return
    occupancy = min(0.95, float(rng.uniform(0.35, 0.85)) * options.parked)
    lateral = side * (LANE + PARKING / 2)
    station = 4.0
    while station < street.length - 4:
        if rng.random() < occupancy and not street.in_gap(station, 3.0) and not street.bends(station, lateral):
            reversed_ = rng.random() < 0.06
            turn = float(rng.normal(0, 0.025)) + np.pi * ((side > 0) != reversed_)
            place = _place(street, station, lateral + float(rng.normal(0, 0.08)), turn)
            draw = rng.random()
            if draw < 0.83:
                population.stand(make_car(rng), "Car", place, margin=0.25)
            elif draw < 0.92:
                population.stand(make_van(rng), "Van", place, margin=0.25)
            elif draw < 0.94:
                population.stand(make_truck(rng), "Truck", place, margin=0.4)
            elif rng.random() < options.clutter:
                population.stand(KERBSIDE[rng.integers(len(KERBSIDE))](rng), "Clutter", place)
        station += float(rng.uniform(5.0, 6.4))


def _furnish(
    population: Population, rng: np.random.Generator, street: Street, side: int, options: SceneOptions
) -> None:
    """Fill the strip beside the kerb and the foot of the houses."""
    leafy = rng.random()
    station = float(rng.uniform(2, 8))
    while station < street.length - 2:
        lateral = side * (street.half_width + float(rng.uniform(0.45, 0.7)))
        if not street.in_gap(station, 1.0) and not street.bends(station, lateral):
            draw = rng.random()
            turn = _facing(side)
            place = _place(street, station, lateral, turn)
            if draw < 0.35 * leafy:
                population.stand(make_tree(rng), "Tree", place, footprint=0.3)
            elif draw < 0.35:
                population.stand(make_pole(rng), "Pole", place, footprint=0.2)
            elif draw < 0.5:
                facing = place[2] + (np.pi if side < 0 else 0.0) + float(rng.normal(0, 0.1))
                population.stand(make_sign(rng), "Sign", (place[0], place[1], facing), footprint=0.3)
            elif rng.random() < options.clutter:
                shape = FURNITURE[rng.integers(len(FURNITURE))](rng)
                yaw = place[2] + float(rng.choice([0.0, 0.0, np.pi / 2, np.pi]))
                population.stand(shape, "Clutter", (place[0], place[1], yaw), from_kerb=0.08)
        station += float(rng.uniform(2.5, 9.0))
    station = float(rng.uniform(2, 10))
    while station < street.length - 2:
        lateral = side * (street.half_width + FRONT - 0.35)
        if rng.random() < options.clutter and not street.in_gap(station, 1.0) and not street.bends(station, lateral):
            place = _place(street, station, lateral, _facing(side) + float(rng.normal(0, 0.3)))
            population.stand(FRONTAGE[rng.integers(len(FRONTAGE))](rng), "Clutter", place, from_kerb=1.9)
        station += float(rng.uniform(4.0, 16.0))


def _build(population: Population, rng: np.random.Generator, street: Street, side: int, options: SceneOptions) -> None:
    """Fill the plots beside the pavement."""
    urban = rng.random()
    station = float(rng.uniform(0, 6))
    while station < street.length - 4:
        width = float(rng.uniform(7.0, 20.0))
        middle = station + width / 2
        lateral = street.half_width + FRONT
        station += width + float(rng.uniform(0.0, 3.0))
        if street.bends(middle, side * (lateral + 6), width / 2):
            width = min(width, 6.0)
        draw = rng.random()
        if draw < 0.35 + 0.4 * urban:
            depth, setback = float(rng.uniform(7, 11)), float(rng.choice([0.3, 1.5, 5.0, 8.0]))
            house = make_building(rng, width * 0.92, depth)
            place = _place(street, middle, side * (lateral + 1.2 + setback + depth / 2), _facing(side))
            population.stand(house, "Building", place, from_kerb=FRONT)
            if setback > 2:
                _enclose(population, rng, street, side, middle, width)
                _garden(population, rng, street, side, middle, width, setback, options)
        elif draw < 0.85 and width > 9:
            _lot(population, rng, street, side, middle, width, options)
        else:
            _enclose(population, rng, street, side, middle, width)
            _garden(population, rng, street, side, middle, width, 12.0, options)


def _enclose(
    population: Population, rng: np.random.Generator, street: Street, side: int, middle: float, width: float
) -> None:
    """Put a wall, a fence or a hedge between pavement and garden, with a gate."""
    kind = rng.random()
    lateral = side * (street.half_width + FRONT + 0.2)
    pieces = max(1, round(width / 5.0))
    length = width / pieces
    gate = int(rng.integers(pieces + 1))
    for piece in range(pieces):
        if piece == gate:
            continue
        place = _place(street, middle - width / 2 + (piece + 0.5) * length, lateral, _facing(side))
        # Lengths along the kerb differ from lengths along the centre line in bends.
        if kind < 0.35:
            population.stand(make_wall(rng, length - 0.6), "Wall", place, from_kerb=FRONT - 0.6, margin=0.0)
        elif kind < 0.7:
            population.stand(make_fence(rng, length - 0.3), "Fence", place, from_kerb=FRONT - 0.6, margin=0.0)
        else:
            population.stand(make_hedge(rng, length - 0.4), "Bush", place, from_kerb=FRONT - 0.7, margin=0.0)


def _garden(
    population: Population,
    rng: np.random.Generator,
    street: Street,
    side: int,
    middle: float,
    width: float,
    depth: float,
    options: SceneOptions,
) -> None:
    for _ in range(int(rng.poisson(0.5 + width * depth / 22.0))):
        station = middle + float(rng.uniform(-0.5, 0.5)) * width
        lateral = side * (street.half_width + FRONT + 0.8 + float(rng.uniform(0, 1)) * depth)
        place = _place(street, station, lateral, float(rng.uniform(-np.pi, np.pi)))
        draw = rng.random()
        if draw < 0.45:
            population.stand(make_bush(rng), "Bush", place, from_kerb=FRONT)
        elif draw < 0.7:
            population.stand(
                make_tree(rng, float(rng.uniform(1.8, 3.9))), "Tree", place, footprint=0.35, from_kerb=FRONT
            )
        elif draw < 0.8:
            population.stand(make_conifer(rng), "Tree", place, from_kerb=FRONT)
        elif rng.random() < options.clutter:
            makers = (*FRONTAGE, *KERBSIDE)
            population.stand(makers[rng.integers(len(makers))](rng), "Clutter", place, from_kerb=FRONT)


def _lot(
    population: Population,
    rng: np.random.Generator,
    street: Street,
    side: int,
    middle: float,
    width: float,
    options: SceneOptions,
) -> None:
    """Fill a car park: one or two rows across the street's direction."""
    occupancy = min(0.95, float(rng.uniform(0.4, 0.9)) * options.parked)
    for row in range(int(rng.integers(1, 3))):
        for slot in range(int(width / 2.6)):
            if rng.random() > occupancy:
                continue
            station = middle - width / 2 + (slot + 0.5) * 2.6
            lateral = side * (street.half_width + FRONT + 3.0 + row * 6.5 + float(rng.normal(0, 0.15)))
            turn = np.pi / 2 * float(rng.choice([-1, 1])) + float(rng.normal(0, 0.03))
            place = _place(street, station, lateral, turn)
            draw = rng.random()
            if draw < 0.88:
                population.stand(make_car(rng), "Car", place, from_kerb=1.5, margin=0.2)
            elif draw < 0.96:
                population.stand(make_van(rng), "Van", place, from_kerb=1.5, margin=0.2)
            elif rng.random() < options.clutter:
                makers = KERBSIDE
                population.stand(makers[rng.integers(len(makers))](rng), "Clutter", place, from_kerb=1.5)


__all__ = ["Layout", "SceneOptions", "make_scene"]
