"""A run's last epoch is validated, whatever the interval of validations."""

from typing import Any

import pytorch_lightning as pl


class ValidateAtEnd(pl.Callback):
    """Lets the last epoch, or the step at which a run ends within one, be validated as well.

    Lightning validates every so many epochs: those after the last multiple of the interval would never be scored, and
    their detector could not become the best.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look whether a run that goes on within its last epoch is in it; then no epoch starts."""
        self._look(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look whether this epoch is the last."""
        self._look(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Look whether this was the last step; a trainer that is about to stop validates at once."""
        if trainer.enable_validation and 0 < trainer.max_steps <= trainer.global_step:
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True

    @staticmethod
    def _look(trainer: pl.Trainer) -> None:
        if trainer.check_val_every_n_epoch is not None and trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1
