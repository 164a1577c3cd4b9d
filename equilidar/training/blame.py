"""Which sample of a batch makes a loss that is not finite."""

import math
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch

from equilidar.objectives.reduction import num_processes
from equilidar.structures import LossTerms


@runtime_checkable
class GivesTerms(Protocol):
    """A module that can tell the loss terms of a batch of its own kind."""

    def terms_of(self, batch: Any) -> LossTerms:
        """Return the loss terms of a batch as the loader yields it."""
        ...


@torch.no_grad()
def samples_to_blame(module: pl.LightningModule, batch: Any) -> dict[str, list[str]]:
    """Return the samples of a batch that by themselves give terms which are not finite, and the names of these.

    Each is passed alone through the module as in training: the running statistics may hold what is not finite by now.
    Called when the run is about to stop, for these move again. In a distributed run nothing is asked, as the other
    processes would wait for ever; nor of a module or a batch that cannot tell.
    """
    if num_processes() > 1 or not isinstance(module, GivesTerms) or not hasattr(batch, "split"):
        return {}
    blamed: dict[str, list[str]] = {}
    for item in batch.split():
        try:
            terms = module.terms_of(item).terms
        except (RuntimeError, ValueError) as error:  # what cannot even be computed is to blame as well
            blamed[item.keys[0]] = [str(error).splitlines()[0]]
            continue
        wrong = [name for name, term in terms.items() if not math.isfinite(float(term))]
        if wrong:
            blamed[item.keys[0]] = wrong
    return blamed
