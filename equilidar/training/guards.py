"""What stops a run where too many samples are faulty."""

import logging
from typing import Any

import pytorch_lightning as pl

from equilidar.data.faults import Fault, FaultBudget
from equilidar.data.loading import LoadedBatch
from equilidar.training.run_directory import RunDirectory

_log = logging.getLogger(__name__)


class FaultWatch(pl.Callback):
    """Counts faulty samples, names each once in the log and in faulty_samples.txt, and stops when they are too many.

    The counts are kept in the checkpoint. Faulty sweeps of the validation split are named as well, and not counted:
    they stay in the evaluation, as sweeps in which nothing was found.
    """

    def __init__(self, run: RunDirectory, budget: FaultBudget) -> None:
        self._file, self._budget = run.path / "faulty_samples.txt", budget
        self._of_validation: set[str] = set()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *_: Any) -> None:
        """Count.

        Raises:
            TooManyFaultsError: more than the budget allows.
        """
        if not isinstance(batch, LoadedBatch):
            return
        for fault in self._budget.observe(batch.num_seen, batch.faults):
            self._name(fault, "skipped")

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, *_: Any
    ) -> None:
        """Name what cannot be evaluated."""
        for fault in batch.faults if isinstance(batch, LoadedBatch) else ():
            if fault.key not in self._of_validation:
                self._of_validation.add(fault.key)
                self._name(fault, "nothing can be found in validation sweep")

    def _name(self, fault: Fault, what: str) -> None:
        line = f"{fault.key}: {fault.reason}"
        _log.warning("%s %s", what, line)
        with self._file.open("a") as file:
            file.write(line + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return self._budget.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._budget.load_state_dict(state_dict)
