"""One progress bar over the whole run, with the time that is left."""

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm


class RunProgress(ProgressBar):
    """A bar over all optimizer steps of the run; into a file or a pipe it prints a line now and then.

    Args:
        shown: logged values beside the bar.
        seconds_between_lines: where the output is no terminal.
    """

    def __init__(self, shown: tuple[str, ...] = ("loss",), seconds_between_lines: float = 15.0) -> None:
        super().__init__()
        self._shown, self._seconds = tuple(shown), seconds_between_lines
        self._enabled, self._bar = True, None

    @property
    def is_enabled(self) -> bool:
        return self._enabled

    def disable(self) -> None:
        """Show nothing (Lightning calls this in all processes but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        tqdm.write(" ".join(map(str, args)), file=sys.stdout)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the steps that an earlier attempt did: the time that is left is that of the rest."""
        if not self._enabled:
            return
        terminal = sys.stdout.isatty()
        self._bar = tqdm(
            total=int(trainer.estimated_stepping_batches),
            initial=trainer.global_step,
            unit="step",
            file=sys.stdout,
            dynamic_ncols=terminal,
            mininterval=0.2 if terminal else self._seconds,
            ascii=not terminal,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Move the bar."""
        if self._bar is None or trainer.global_step == self._bar.n:
            return
        metrics = trainer.callback_metrics
        values = {name: metrics[name] for name in self._shown if name in metrics}
        self._bar.set_postfix({name: f"{float(value):.4g}" for name, value in values.items()}, refresh=False)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
