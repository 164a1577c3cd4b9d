"""The simulator's pairs with their exact flow and whose points are whose: what estimators are measured on."""

import numpy as np
import torch

from equilidar.data.simulator.classes import SEMANTICS, semantic_id
from equilidar.data.simulator.dataset import SimulatedPairs
from equilidar.formats.argoverse2_annotations import CATEGORIES
from equilidar.structures import LabelledPair

# Vans are passenger vehicles to Argoverse 2.
_CATEGORY = {
    "Car": "REGULAR_VEHICLE",
    "Van": "REGULAR_VEHICLE",
    "Truck": "TRUCK",
    "Pedestrian": "PEDESTRIAN",
    "Cyclist": "BICYCLIST",
}
_GROUND = [semantic_id(name) for name in ("Road", "Sidewalk", "Terrain")]
_DYNAMIC_SPEED = 0.5
_PERIOD = 1e-3  # seconds; guards the division for a point that is captured at the target's own time


class SimulatedLabelledPairs:
    """`SimulatedPairs` with everything that is known of each source point.

    A limb that rests while its owner walks is not dynamic: motion is each point's own, against the world, from its
    capture to the target's reference time.

    Args:
        pairs: of the simulator; whether they give the exact flow themselves does not matter.
    """

    def __init__(self, pairs: SimulatedPairs) -> None:
        self.pairs, self.name, self.keys = pairs, pairs.name, pairs.keys
        self._categories = np.zeros(len(SEMANTICS), dtype=np.int64)
        for name, category in _CATEGORY.items():
            self._categories[semantic_id(name)] = 1 + CATEGORIES.index(category)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> LabelledPair:
        """Return pair `index`."""
        source = self.pairs.simulate(index)
        pair = self.pairs.pair_from(index, source, exact_flow=True)
        seconds = pair.target.timestamp - source.timestamp - source.time.astype(np.float64)
        speed = np.linalg.norm(source.flow - source.rest, axis=1) / np.maximum(seconds, _PERIOD)
        category = self._categories[source.semantic]
        return LabelledPair(
            pair,
            rest=torch.from_numpy(source.rest),
            dynamic=torch.from_numpy(speed > _DYNAMIC_SPEED),
            category=torch.from_numpy(category),
            instance=torch.from_numpy(np.where(category > 0, source.instance, -1)),
            ground=torch.from_numpy(np.isin(source.semantic, _GROUND)),
        )
