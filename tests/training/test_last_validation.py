"""Whatever the interval, the last thing a run does is a validation."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from equilidar.training.launch import fit, make_trainer
from equilidar.training.run_directory import open_run
from equilidar.training.saving import SaveLast

STEPS_AN_EPOCH = 4


class Counts(pl.LightningModule):
    """Remembers at which steps it was validated."""

    def __init__(self, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.validated: list[int] = []
        self._fail_at = fail_at

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == self._fail_at:
            raise KeyboardInterrupt
        return (self.weight - batch).square().mean()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None: ...

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.validated.append(self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Loaders(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader([torch.ones(1)] * STEPS_AN_EPOCH)  # pyright: ignore[reportArgumentType]

    val_dataloader = train_dataloader


def train(folder: Path, module: Counts, **options: Any) -> Counts:
    with open_run("finetune", {"seed": 0}, [], force=False, runs=str(folder), run=None) as run:
        save = SaveLast(run, every_n_steps=1)
        options = {"accelerator": "cpu", "enable_progress_bar": False, "callbacks": [save], **options}
        fit(make_trainer(run, **options), module, Loaders(), run)
    return module


@pytest.mark.parametrize(
    ("every", "limit", "expected"),
    [
        (2, {"max_epochs": 5}, [8, 16, 20]),
        (2, {"max_epochs": 4}, [8, 16]),
        (10, {"max_epochs": 2}, [8]),
        (1, {"max_epochs": 2}, [4, 8]),
        (2, {"max_epochs": -1, "max_steps": 10}, [8, 10]),
        (10, {"max_epochs": 80, "max_steps": 4}, [4]),
        (10, {"max_epochs": None, "max_steps": 2}, [2]),
    ],
)
def test_every_run_ends_with_a_validation(tmp_path: Path, every: int, limit: dict[str, Any], expected: list[int]):
    assert train(tmp_path, Counts(), check_val_every_n_epoch=every, **limit).validated == expected


def test_a_run_that_goes_on_within_its_last_epoch_ends_with_one(tmp_path: Path):
    options = {"check_val_every_n_epoch": 2, "max_epochs": 3}
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, Counts(fail_at=10), **options)
    assert train(tmp_path, Counts(), **options).validated == [12]
