"""Makers of loggers, finished by the tool with the run directory and the step at which the run goes on."""

import importlib.util
import logging
import secrets
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from equilidar.atomic_file import atomic_file
from equilidar.training.csv_logger import ResumableCSVLogger
from equilidar.training.run_directory import RunDirectory

_log = logging.getLogger(__name__)


def csv(run: RunDirectory, from_step: int) -> Logger:
    """Log to metrics.csv."""
    return ResumableCSVLogger(run.path, from_step)


def tensorboard(run: RunDirectory, from_step: int) -> Logger | None:
    """Log to tensorboard/, or not at all where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        _log.info("no TensorBoard logs: pip install 'equilidar[report]' to have them")
        return None
    # Steps after the checkpoint were logged by the attempt that was killed; the reader drops them.
    return TensorBoardLogger(run.path, name="", version="tensorboard", purge_step=from_step or None)


def wandb(run: RunDirectory, from_step: int, *, project: str = "equilidar", offline: bool = False) -> Logger:
    """Log to Weights & Biases; a resumed run keeps its id.

    Raises:
        ImportError: wandb is not installed.
    """
    if importlib.util.find_spec("wandb") is None:
        raise ImportError("logger=wandb needs wandb: pip install 'equilidar[wandb]'")
    from pytorch_lightning.loggers import WandbLogger

    class FinishedWandbLogger(WandbLogger):
        """Ends its run with the training: the next job of a sweep in this process gets one of its own."""

        @rank_zero_only
        def finalize(self, status: str) -> None:
            super().finalize(status)
            self.experiment.finish(exit_code=0 if status == "success" else 1)

    file = run.path / "wandb_id"
    if run.is_main and not file.is_file():
        with atomic_file(file) as opened:
            opened.write(secrets.token_hex(4).encode())
    identity: dict[str, Any] = {"id": file.read_text(), "resume": "allow"} if file.is_file() else {}
    name = str(Path(run.identity.experiment) / f"seed{run.identity.seed}")
    return FinishedWandbLogger(
        project=project, name=name, save_dir=run.path, offline=offline, config=run.resolved, **identity
    )
