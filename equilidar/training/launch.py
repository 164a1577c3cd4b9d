"""Builds a trainer that loses nothing, and fits a module with it. Knows nothing of what is trained."""

import logging
import warnings
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger

from equilidar.training.checkpoint_io import AtomicCheckpointIO
from equilidar.training.last_validation import ValidateAtEnd
from equilidar.training.run_directory import RunDirectory
from equilidar.training.saving import RandomStates
from equilidar.training.step_record import StepRecord


def make_trainer(
    run: RunDirectory,
    loggers: Iterable[Logger | None] = (),
    callbacks: Iterable[pl.Callback] = (),
    *,
    precision: str = "auto",
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
    **options: Any,
) -> pl.Trainer:
    """Return a trainer with atomic checkpoints, our own samplers, and every step logged.

    Args:
        run: an entered run directory.
        loggers: those that are None are left out.
        callbacks: besides the keeper of random states, the record of steps and the validation at the end.
        precision: "auto" is bf16 autocast where the device has it (losses and BatchNorm statistics stay float32),
            else float32; or any of Lightning's.
        accelerator: "auto", "cpu" or "gpu".
        devices: number of processes on this machine.
        strategy: "auto", or "ddp".
        options: of `pytorch_lightning.Trainer`, such as max_epochs, max_steps, accumulate_grad_batches.
    """
    _quieten()
    # Terms may be absent from a step (no pairs), and then the heads behind them get no gradient.
    strategy = "ddp_find_unused_parameters_true" if strategy == "ddp" else strategy
    return pl.Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        precision=resolve_precision(precision, accelerator),  # pyright: ignore[reportArgumentType]
        plugins=[AtomicCheckpointIO()],
        logger=[logger for logger in loggers if logger is not None],
        callbacks=[RandomStates(), StepRecord(run.path), ValidateAtEnd(), *callbacks],
        default_root_dir=run.path,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **{"log_every_n_steps": 1, **options},
    )


def resolve_precision(precision: str, accelerator: str) -> str:
    """Return Lightning's name for a precision, "auto" decided by the device."""
    if precision != "auto":
        return precision
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def step_to_resume(run: RunDirectory) -> int:
    """Return the number of optimizer steps in the checkpoint that the run goes on from, 0 at a start."""
    if run.resume_from is None:
        return 0
    return int(AtomicCheckpointIO().load_checkpoint(run.resume_from)["global_step"])


def fit(trainer: pl.Trainer, module: pl.LightningModule, loaders: pl.LightningDataModule, run: RunDirectory) -> None:
    """Train to the end, from the run's last checkpoint if there is one."""
    if run.resume_from is not None:
        logging.getLogger(__name__).info("resuming from %s", run.resume_from)
    trainer.fit(module, datamodule=loaders, ckpt_path=run.resume_from, weights_only=True)


def finish(trainer: pl.Trainer, run: RunDirectory, more: dict[str, Any]) -> None:
    """Mark the run as finished, with its last figures and `more` plain values."""
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    run.finish({"steps": trainer.global_step, "metrics": metrics, **more})


def _quieten() -> None:
    """Leave out advice that does not apply here: workers, sampler and modes are chosen on purpose."""
    for message in (
        ".*does not have many workers.*",
        ".*`training_step` returned `None`.*",
        ".*module\\(s\\) in eval mode.*",
        ".*no `validation_step`.*",
        ".*'set_vital' is deprecated.*",
        ".*treespec.*",
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_advertisement)


def _is_no_advertisement(line: logging.LogRecord) -> bool:
    return "litlogger" not in line.getMessage() and "litmodels" not in line.getMessage()
