"""Fills one side of a street: parked vehicles, the strip beside the kerb, the foot of the houses, plots."""

from dataclasses import dataclass

import numpy as np

from equilidar.data.simulator.layout import LANE, PARKING, Street
from equilidar.data.simulator.objects.clutter import FRONTAGE, FURNITURE, KERBSIDE, Maker
from equilidar.data.simulator.objects.shape import Shape
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

FRONT = 2.8  # metres from the kerb to where gardens and houses begin
SLOT = 2.6  # width of a place in a car park

Place = tuple[float, float, float]


@dataclass
class Roadside:
    """One side of a street and what fills it.

    Attributes:
        population: takes the objects.
        rng: draws them.
        street: which street.
        side: 1 left, -1 right of its centre line.
        parked: factor of parked vehicles.
        clutter: factor of street furniture and clutter.
    """

    population: Population
    rng: np.random.Generator
    street: Street
    side: int
    parked: float | int
    clutter: float | int

    def fill(self) -> None:
        """Put everything there."""
        self._park()
        self._furnish()
        self._front()
        self._build()

    def _place(self, station: float, from_centre: float, turn: float = 0.0) -> Place:
        """Return x, y, yaw; without `turn` an object shows its left (+y) to the road."""
        x, y, yaw = self.street.point(station, self.side * from_centre)
        return x, y, yaw + turn + (np.pi if self.side > 0 else 0.0)

    def _free(self, station: float, from_centre: float, reach: float) -> bool:
        """Tell whether things may stand there: no junction, no sharp bend, not too far from the ego vehicle's way."""
        lateral = self.side * from_centre
        if self.street.in_gap(station, reach) or self.street.bends(station, lateral):
            return False
        return self.population.near(*self.street.point(station, lateral)[:2])

    def _any(self, makers: tuple[Maker, ...]) -> Shape | None:
        """Make one of the things, or none if there is to be less clutter."""
        if self.rng.random() >= self.clutter:
            return None
        return makers[self.rng.integers(len(makers))](self.rng)

    def _uniform(self, low: float | int, high: float | int) -> float:
        return float(self.rng.uniform(low, high))

    def _park(self) -> None:
        if self.street.parking[0 if self.side < 0 else 1] == 0.0:
            return
        occupancy = min(0.95, self._uniform(0.35, 0.85) * self.parked)
        station, middle = 4.0, LANE + PARKING / 2
        while station < self.street.length - 4:
            if self.rng.random() < occupancy and self._free(station, middle, 3.0):
                # Few park against the traffic.
                turn = float(self.rng.normal(0, 0.025)) + (np.pi if self.rng.random() < 0.06 else 0.0)
                self._park_one(self._place(station, middle + float(self.rng.normal(0, 0.08)), turn))
            station += self._uniform(5.0, 6.4)

    def _park_one(self, place: Place) -> None:
        draw, rng = self.rng.random(), self.rng
        if draw < 0.83:
            self.population.stand(make_car(rng), "Car", place, margin=0.25)
        elif draw < 0.92:
            self.population.stand(make_van(rng), "Van", place, margin=0.25)
        elif draw < 0.94:
            self.population.stand(make_truck(rng), "Truck", place, margin=0.4)
        elif (thing := self._any(KERBSIDE)) is not None:
            self.population.stand(thing, "Clutter", place)

    def _furnish(self) -> None:
        leafy, station = self.rng.random(), self._uniform(2, 8)
        while station < self.street.length - 2:
            lateral = self.street.half_width + self._uniform(0.45, 0.7)
            if self._free(station, lateral, 1.0):
                self._furnish_one(self._place(station, lateral), leafy)
            station += self._uniform(2.5, 9.0)

    def _furnish_one(self, place: Place, leafy: float) -> None:
        draw, rng, population = self.rng.random(), self.rng, self.population
        if draw < 0.35 * leafy:
            population.stand(make_tree(rng), "Tree", place, footprint=0.3, from_kerb=0.1)
        elif draw < 0.35:
            population.stand(make_pole(rng), "Pole", place, footprint=0.2, from_kerb=0.1)
        elif draw < 0.5:
            # Signs face the traffic of their side, which comes from behind them.
            facing = place[2] + np.pi + float(rng.normal(0, 0.1))
            population.stand(make_sign(rng), "Sign", (*place[:2], facing), footprint=0.3, from_kerb=0.1)
        elif (thing := self._any(FURNITURE)) is not None:
            turn = float(rng.choice([0.0, 0.0, np.pi / 2, np.pi]))
            population.stand(thing, "Clutter", (*place[:2], place[2] + turn), from_kerb=0.08)

    def _front(self) -> None:
        station, lateral = self._uniform(2, 10), self.street.half_width + FRONT - 0.35
        while station < self.street.length - 2:
            if self._free(station, lateral, 1.0) and (thing := self._any(FRONTAGE)) is not None:
                turn = float(self.rng.normal(0, 0.3))
                self.population.stand(thing, "Clutter", self._place(station, lateral, turn), from_kerb=1.9)
            station += self._uniform(4.0, 16.0)

    def _build(self) -> None:
        urban, station = self.rng.random(), self._uniform(0, 6)
        while station < self.street.length - 4:
            width = self._uniform(7.0, 20.0)
            middle = station + width / 2
            station += width + self._uniform(0.0, 3.0)
            if not self.population.near(*self.street.point(middle, 0.0)[:2]):
                continue
            if self.street.bends(middle, self.side * (self.street.half_width + 9.0), width / 2):
                width = min(width, 6.0)
            draw = self.rng.random()
            if draw < 0.3 + 0.4 * urban:
                self._house(middle, width)
            elif draw < 0.55 + 0.3 * urban and width > 9:
                self._car_park(middle, width)
            else:
                self._enclose(middle, width)
                self._plant(middle, width, 13.0)

    def _house(self, middle: float, width: float) -> None:
        depth, setback = self._uniform(7, 11), float(self.rng.choice([0.3, 1.5, 5.0, 8.0]))
        place = self._place(middle, self.street.half_width + FRONT + 1.2 + setback + depth / 2)
        self.population.stand(make_building(self.rng, width * 0.92, depth), "Building", place, from_kerb=FRONT)
        if setback > 2:
            self._enclose(middle, width)
            self._plant(middle, width, setback)

    def _enclose(self, middle: float, width: float) -> None:
        """Put a wall, a fence or a hedge between pavement and garden, with a gate."""
        kind, lateral = self.rng.random(), self.street.half_width + FRONT + 0.2
        pieces = max(1, round(width / 5.0))
        length, gate = width / pieces, int(self.rng.integers(pieces + 1))
        for piece in range(pieces):
            if piece == gate:
                continue
            place = self._place(middle - width / 2 + (piece + 0.5) * length, lateral)
            # Shorter than the plot: in bends, lengths along the kerb differ from those along the centre line.
            if kind < 0.35:
                made, semantic = make_wall(self.rng, length - 0.6), "Wall"
            elif kind < 0.7:
                made, semantic = make_fence(self.rng, length - 0.3), "Fence"
            else:
                made, semantic = make_hedge(self.rng, length - 0.4), "Bush"
            self.population.stand(made, semantic, place, from_kerb=FRONT - 0.7, margin=0.0)

    def _plant(self, middle: float, width: float, depth: float) -> None:
        """Fill a garden with bushes, trees and what lies about."""
        rng, population = self.rng, self.population
        for _ in range(int(rng.poisson(1.0 + width * depth / 12.0))):
            lateral = self.street.half_width + FRONT + 0.8 + self._uniform(0, 1) * depth
            place = self._place(middle + self._uniform(-0.5, 0.5) * width, lateral, self._uniform(-np.pi, np.pi))
            draw = rng.random()
            if draw < 0.45:
                population.stand(make_bush(rng), "Bush", place, from_kerb=FRONT)
            elif draw < 0.72:
                tree = make_tree(rng, self._uniform(1.5, 3.9))
                population.stand(tree, "Tree", place, footprint=0.35, from_kerb=FRONT)
            elif draw < 0.84:
                population.stand(make_conifer(rng), "Tree", place, from_kerb=FRONT)
            elif (thing := self._any((*FRONTAGE, *KERBSIDE))) is not None:
                population.stand(thing, "Clutter", place, from_kerb=FRONT)

    def _car_park(self, middle: float, width: float) -> None:
        """Fill one or two rows of vehicles across the street's direction."""
        occupancy = min(0.95, self._uniform(0.4, 0.9) * self.parked)
        for row in range(int(self.rng.integers(1, 3))):
            for slot in range(int(width / SLOT)):
                if self.rng.random() > occupancy:
                    continue
                lateral = self.street.half_width + FRONT + 3.0 + row * 6.5 + float(self.rng.normal(0, 0.15))
                turn = np.pi / 2 * float(self.rng.choice([-1, 1])) + float(self.rng.normal(0, 0.03))
                place = self._place(middle - width / 2 + (slot + 0.5) * SLOT, lateral, turn)
                draw = self.rng.random()
                if draw < 0.88:
                    self.population.stand(make_car(self.rng), "Car", place, from_kerb=1.5, margin=0.2)
                elif draw < 0.96:
                    self.population.stand(make_van(self.rng), "Van", place, from_kerb=1.5, margin=0.2)
                elif (thing := self._any(KERBSIDE)) is not None:
                    self.population.stand(thing, "Clutter", place, from_kerb=1.5)
