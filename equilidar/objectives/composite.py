"""Several objectives as one."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from equilidar.backbones.feature_info import FeatureInfo
from equilidar.objectives.protocol import Objective
from equilidar.structures import LossTerms, PairFeatures


class CompositeObjective(nn.Module):
    """The sum of several objectives, which read the same encoded views.

    Terms, metrics and embeddings are called OBJECTIVE/NAME.
    """

    def __init__(self, objectives: Mapping[str, nn.Module]) -> None:
        """Take objectives by name.

        Raises:
            ValueError: there is none.
        """
        super().__init__()
        if not objectives:
            raise ValueError("objective: choose at least one, for example 'objective=[point_contrast,rotation]'")
        self.objectives = nn.ModuleDict(dict(objectives))

    @classmethod
    def from_partials(
        cls, partials: Mapping[str, Callable[..., Any] | None], *, features: FeatureInfo
    ) -> "CompositeObjective":
        """Finish partly built objectives (`_partial_: true` in their configs); those that are None are left out."""
        return cls({name: build(features=features) for name, build in partials.items() if build is not None})

    @property
    def reads(self) -> frozenset[str]:
        """What any of them reads."""
        return frozenset[str]().union(*(objective.reads for _, objective in self._named()))

    def forward(self, pair: PairFeatures) -> LossTerms:
        """Return all terms with their weights, and all metrics."""
        terms: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        metrics: dict[str, Tensor] = {}
        for name, objective in self._named():
            losses = objective(pair)
            terms |= _prefixed(name, losses.terms)
            weights |= _prefixed(name, losses.weights)
            metrics |= _prefixed(name, losses.metrics)
        return LossTerms(terms, weights, metrics)

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return the (online, target) pairs of all."""
        return [pair for _, objective in self._named() for pair in objective.ema_pairs()]

    def embeddings(self, pair: PairFeatures) -> dict[str, Float[Tensor, "N D"]]:
        """Return what a collapse monitor should look at, of all."""
        looks = [_prefixed(name, objective.embeddings(pair)) for name, objective in self._named()]
        return {name: embedding for look in looks for name, embedding in look.items()}

    def _named(self) -> Iterable[tuple[str, Objective]]:
        return cast("Iterable[tuple[str, Objective]]", self.objectives.items())


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": value for name, value in values.items()}
