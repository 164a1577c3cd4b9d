"""What an objective is."""

from collections.abc import Set
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from equilidar.structures import LossTerms, PairFeatures


@runtime_checkable
class Objective(Protocol):
    """A pretraining loss: an `nn.Module` that owns its heads and reads encoded views, never the encoder.

    Constructed with `features: FeatureInfo` (what the backbone gives) and its own coefficients.

    Attributes:
        reads: which of "a", "b", "source" it looks at; "source" is encoded by the EMA target network.
    """

    @property
    def reads(self) -> Set[str]: ...

    def __call__(self, pair: PairFeatures) -> LossTerms:
        """Return unweighted terms, their weights and what is to be logged."""
        ...

    def ema_pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return (online, target): modules whose target follows by exponential moving average."""
        ...

    def embeddings(self, pair: PairFeatures) -> dict[str, Float[Tensor, "N D"]]:
        """Return what a collapse monitor should look at, by name; without gradient."""
        ...
