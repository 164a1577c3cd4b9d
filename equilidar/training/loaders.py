"""The loaders of a run, made once the processes of a distributed run know their rank."""

from typing import Any, cast

import pytorch_lightning as pl
from torchdata.stateful_dataloader import StatefulDataLoader

from equilidar.data.class_balance import balanced_pool
from equilidar.data.loading import Kind, Transform, make_loader, place_in_epoch
from equilidar.data.protocols import LabelledDataset, PairDataset
from equilidar.data.sampler import SeededSampler


class SweepLoaders(pl.LightningDataModule):
    """Training and validation loaders of `LoadedBatch`es; keeps the place in the epoch in the checkpoint.

    Lightning keeps it as well, but forgets to restore it where `configure_optimizers` asks for the number of steps
    (2.6: the loaders are set up then, before the checkpoint's loops are read).

    Args:
        train: dataset to learn from.
        kind: "pairs" or "labelled".
        batch_size: over all processes together, so that a run means the same on any number of them.
        seed: of the run.
        num_workers: reading processes per training process.
        validation: dataset to evaluate on, each sample once; None for none.
        pin_memory: put batches into page-locked memory (for a GPU).
        transform: done to each labelled training sweep by the worker that reads it.
        class_balanced: draw training sweeps so that each class is met about as often (see `balanced_pool`).

    Raises:
        ValueError: pairs are to be balanced: they have no classes.
    """

    def __init__(
        self,
        train: PairDataset | LabelledDataset,
        kind: Kind,
        *,
        batch_size: int,
        seed: int,
        num_workers: int = 0,
        validation: LabelledDataset | PairDataset | None = None,
        pin_memory: bool = False,
        transform: Transform | None = None,
        class_balanced: bool = False,
    ) -> None:
        super().__init__()
        if class_balanced and kind != "labelled":
            raise ValueError("loader.class_balanced is for labelled sweeps: pairs have no classes")
        self._class_balanced = class_balanced
        self._train, self._validation = train, validation
        self._kind: Kind = kind
        self._batch_size, self._seed = batch_size, seed
        self._transform = transform
        self._loader_of_train: StatefulDataLoader | None = None
        self._place: dict[str, Any] | None = None
        self._options: dict[str, Any] = {
            "num_workers": num_workers,
            "pin_memory": pin_memory,
        }

    def train_dataloader(self) -> StatefulDataLoader:
        """Return the shuffled loader of this process, standing where the checkpoint says."""
        pool = balanced_pool(cast(LabelledDataset, self._train), self._seed) if self._class_balanced else None
        self._loader_of_train = loader = self._loader(
            self._train, shuffle=True, drop_last=True, transform=self._transform, pool=pool
        )
        if self._place is not None:
            if self._place["processes"] != self._processes():
                raise ValueError(
                    f"the run was begun with {self._place['processes']} processes and cannot go on with "
                    f"{self._processes()}: set trainer.devices (and num_nodes) as before"
                )
            assert isinstance(loader.sampler, SeededSampler)
            if self._place["sampler"] is not None:
                loader.sampler.resume(self._place["sampler"])
            else:
                # Lightning names the epoch, too, but only after it has begun to iterate.
                loader.sampler.set_epoch(self._place["next_epoch"])
            self._place = None
        return loader

    def val_dataloader(self) -> StatefulDataLoader | list[Any]:
        """Return the loader of this process over its share of the validation samples, in order."""
        return [] if self._validation is None else self._loader(self._validation, shuffle=False, drop_last=False)

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the epoch; it is the same in every process.

        A "sampler" of None stands for the beginning of "next_epoch": a loader that is put back to the end of one yields
        nothing, and Lightning, which has gone on to the next, would take that for the whole of it.
        """
        if self._loader_of_train is None:
            return {}
        is_at_end = self.trainer is not None and self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        next_epoch = 0 if self.trainer is None else self.trainer.current_epoch + 1
        place = None if is_at_end else place_in_epoch(self._loader_of_train)
        return {"processes": self._processes(), "sampler": place, "next_epoch": next_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the place for the loader that is made next."""
        self._place = state_dict

    def _processes(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def _loader(self, dataset: PairDataset | LabelledDataset, **how: Any) -> StatefulDataLoader:
        rank, processes = self.trainer.global_rank if self.trainer else 0, self._processes()
        if self._batch_size % processes:
            raise ValueError(
                f"loader.batch_size is over all processes and must be a multiple of their number: "
                f"got {self._batch_size} for {processes}"
            )
        return make_loader(
            dataset,
            self._kind,
            self._batch_size // processes,
            seed=self._seed,
            rank=rank,
            world_size=processes,
            **self._options,
            **how,
        )
