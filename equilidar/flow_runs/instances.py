"""Errors of estimated flow by object: a large car's points do not hide a pedestrian's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from equilidar.evaluation.scene_flow import CATEGORY_TO_INDEX
from equilidar.evaluation.text_table import text_table
from equilidar.structures import LabelledPair

_NAMES = {index: name.lower() for name, index in CATEGORY_TO_INDEX.items()}


@dataclass(slots=True)
class ObjectSum:
    """Sums over an object's points in all pairs of its sequence."""

    category: int
    moving: bool
    points: int = 0
    error: float = 0.0
    distance: float = 0.0


@dataclass(slots=True)
class InstanceErrors:
    """Mean end-point error of each object.

    Attributes:
        sums: by sequence, object and whether it moves.
    """

    sums: dict[tuple[str, int, bool], ObjectSum] = field(default_factory=dict)

    def add(self, labelled: LabelledPair, estimate: Float[Tensor, "N 3"], counted: Bool[np.ndarray, " N"]) -> None:
        """Add a pair's points that count."""
        assert labelled.pair.flow is not None
        truth = labelled.pair.flow.double().numpy()
        error = np.linalg.norm(estimate.double().numpy() - truth, axis=1)
        distance = np.linalg.norm(truth - labelled.rest.double().numpy(), axis=1)
        instance, moves = labelled.instance.numpy(), labelled.dynamic.numpy()
        sequence = labelled.pair.source.key.rpartition("/")[0]
        for moving in (True, False):
            chosen = counted & (instance >= 0) & (moves == moving)
            for number in np.unique(instance[chosen]).tolist():
                own = chosen & (instance == number)
                category = int(labelled.category.numpy()[own][0])
                total = self.sums.setdefault((sequence, number, moving), ObjectSum(category, moving))
                total.points += int(own.sum())
                total.error += float(error[own].sum())
                total.distance += float(distance[own].sum())

    def mean_error(self, moving: bool) -> float:
        """Return the mean over objects of each one's mean error, metres; NaN where there is none."""
        errors = [one.error / one.points for one in self.sums.values() if one.moving == moving]
        return float(np.mean(errors)) if errors else float("nan")


def instance_table(errors: Mapping[str, InstanceErrors], number: int = 12) -> str:
    """Return a table of the moving objects with the most points, and the mean over all of them.

    Args:
        errors: by estimator; all of the same pairs.
        number: of objects; each is named by the beginning of its sequence's name and the end of its own number.
    """
    first = next(iter(errors.values()))
    moving = sorted(((key, one) for key, one in first.sums.items() if one.moving), key=lambda item: -item[1].points)
    rows = [
        [
            f"{key[0].rpartition('/')[2][:8]} {str(key[1])[-6:]}",
            _NAMES[one.category],
            one.points,
            one.distance / one.points,
        ]
        + [each.sums[key].error / each.sums[key].points for each in errors.values()]
        for key, one in moving[:number]
    ]
    mean = [f"mean of {len(moving)} objects", "", None, None, *(each.mean_error(True) for each in errors.values())]
    return text_table(["moving object", "category", "points", "moves [m]", *errors], [*rows, mean])
