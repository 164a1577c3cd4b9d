"""Builds a scene: streets, ground, what stands and what moves."""

from dataclasses import dataclass

import numpy as np

from equilidar.data.simulator.ground import make_ground
from equilidar.data.simulator.layout import LANE, make_layout
from equilidar.data.simulator.movers import add_crossers, add_cyclists, add_traffic, add_walkers
from equilidar.data.simulator.population import Population
from equilidar.data.simulator.roadside import Roadside
from equilidar.data.simulator.scene import Scene
from equilidar.data.simulator.traffic import along, drive_profile


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

    parked: float | int = 1.0
    traffic: float | int = 1.0
    people: float | int = 1.0
    cyclists: float | int = 1.0
    clutter: float | int = 1.0
    roughness: float | int = 1.0

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
            Roadside(population, rng, street, side, options.parked, options.clutter).fill()
    add_traffic(population, rng, layout, profile, shift, options.traffic)
    add_cyclists(population, rng, layout, options.cyclists)
    add_crossers(population, rng, layout, options.people)
    add_walkers(population, rng, layout, options.people)
    z = ground.bases(ego[:, :2])
    return population.scene(seed, sequence, np.concatenate([ego[:, :2], z[:, None], ego[:, 2:]], 1))
