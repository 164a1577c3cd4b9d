"""From dataset to batches: workers only read and concatenate; faulty samples are reported, not fatal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from equilidar.data.faults import Fault, FaultySweepError, points_flaw
from equilidar.data.protocols import LabelledDataset, PairDataset
from equilidar.data.sampler import SampleRequest, SeededSampler
from equilidar.data.transport import Arena, pack, room_for, unpack
from equilidar.structures import LabelledBatch, LabelledSweep, Sweep, SweepPair, SweepPairBatch
from equilidar.structures.moving import Movable

Kind = Literal["pairs", "labelled"]

Transform = Callable[[LabelledSweep, int], LabelledSweep]
"""What a worker does to a labelled sweep, given the sample's own seed."""

B = TypeVar("B", SweepPairBatch, LabelledBatch)


@dataclass(slots=True)
class LoadedBatch(Movable, Generic[B]):
    """What a loader yields.

    Attributes:
        batch: the samples that could be loaded; None if there is none (all faulty, or all padding).
        faults: the samples that could not, with the reason.
    """

    batch: B | None
    faults: list[Fault]

    def __reduce__(self) -> Any:
        return _received, pack((self.batch, self.faults))

    @property
    def num_seen(self) -> int:
        """Samples that were asked for, without padding: what `FaultBudget.observe` counts."""
        return (0 if self.batch is None else self.batch.batch_size) + len(self.faults)


def _received(*packed: Any) -> LoadedBatch:
    return LoadedBatch(*unpack(*packed))


@dataclass(slots=True)
class LoadedSample:
    """A sample and its own seed, on its way to the collate function."""

    item: SweepPair | LabelledSweep
    seed: int


class RequestedSamples(Dataset):
    """Answers `SampleRequest`s from a dataset: a sample, a fault record, or None for padding."""

    def __init__(self, dataset: PairDataset | LabelledDataset, transform: Transform | None = None) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, request: SampleRequest) -> LoadedSample | Fault | None:
        if request.padding:
            return None
        try:
            item = self.dataset[request.index]
        except FaultySweepError as error:
            return Fault(self.dataset.keys[request.index], str(error))
        if self.transform is not None and isinstance(item, LabelledSweep):
            item = self.transform(item, request.seed)
        flaw = _flaw(item)
        if flaw is not None:
            return Fault(self.dataset.keys[request.index], flaw)
        return LoadedSample(item, request.seed)


def _flaw(item: SweepPair | LabelledSweep) -> str | None:
    """Return what is not finite in a sample.

    One such point would make every loss of its batch NaN, and a box that is nowhere would be dropped without a word.
    """
    sweeps = {"source": item.source, "target": item.target} if isinstance(item, SweepPair) else {"sweep": item.sweep}
    for name, sweep in sweeps.items():
        if (flaw := points_flaw(sweep)) is not None:
            return f"{name}: {flaw}"
    if isinstance(item, LabelledSweep):
        boxes = item.boxes.as_tensor()
        wrong = ~(boxes.isfinite().all(1) & (boxes[:, 3:6] > 0).all(1))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0, 0])
            return (
                f"box {row} has values that are not finite or a size that is not positive: "
                f"{[round(value, 3) for value in boxes[row].tolist()]} (x, y, z, length, width, height, yaw)"
            )
    return None


def collate_pairs(samples: list[LoadedSample | Fault | None]) -> LoadedBatch[SweepPairBatch]:
    """Concatenate pairs; keep fault records beside them."""
    good = [sample for sample in samples if isinstance(sample, LoadedSample)]
    pairs = [sample.item for sample in good if isinstance(sample.item, SweepPair)]
    if not pairs:
        return LoadedBatch(None, _faults(samples))
    sweeps = [sweep for pair in pairs for sweep in (pair.source, pair.target)]
    flows = [tensor for pair in pairs for tensor in (pair.flow, pair.flow_valid) if tensor is not None]
    with Arena(room_for([*_points_of(sweeps), *flows])) as arena:
        batch = SweepPairBatch.collate(pairs, [sample.seed for sample in good], arena.concatenate)
    return LoadedBatch(batch, _faults(samples))


def collate_labelled(samples: list[LoadedSample | Fault | None]) -> LoadedBatch[LabelledBatch]:
    """Concatenate labelled sweeps; keep fault records beside them."""
    good = [sample for sample in samples if isinstance(sample, LoadedSample)]
    sweeps = [sample.item for sample in good if isinstance(sample.item, LabelledSweep)]
    if not sweeps:
        return LoadedBatch(None, _faults(samples))
    with Arena(room_for(_points_of([item.sweep for item in sweeps]))) as arena:
        batch = LabelledBatch.collate(sweeps, [sample.seed for sample in good], arena.concatenate)
    return LoadedBatch(batch, _faults(samples))


def _points_of(sweeps: list[Sweep]) -> list[Tensor]:
    return [tensor for sweep in sweeps for tensor in (sweep.xyz, sweep.features)]


def _faults(samples: list[LoadedSample | Fault | None]) -> list[Fault]:
    return [sample for sample in samples if isinstance(sample, Fault)]


_COLLATES = {"pairs": collate_pairs, "labelled": collate_labelled}


def make_loader(
    dataset: PairDataset | LabelledDataset,
    kind: Kind,
    batch_size: int,
    *,
    seed: int,
    num_workers: int = 0,
    shuffle: bool = True,
    drop_last: bool = True,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    persistent_workers: bool = False,
    prefetch_factor: int | None = None,
    transform: Transform | None = None,
    pool: Sequence[int] | None = None,
) -> StatefulDataLoader:
    """Return a loader of `LoadedBatch`es that resumes in mid-epoch with identical batches.

    What `place_in_epoch` returns goes into the checkpoint; after `loader.sampler.resume(place)` a new loader, with
    whatever number of workers, goes on from there. The trainer may not put a sampler of its own in
    (`use_distributed_sampler=False`). No global random state is read or moved.

    Args:
        dataset: map-style dataset of pairs or labelled sweeps.
        kind: what it yields.
        batch_size: per process.
        seed: of the run.
        num_workers: reading processes; 0 reads in this one.
        shuffle: see `SeededSampler`.
        drop_last: see `SeededSampler`; False for evaluation: each sample exactly once over all processes.
        rank: of this process.
        world_size: number of processes.
        pin_memory: put batches into page-locked memory.
        persistent_workers: keep the workers between epochs.
        prefetch_factor: batches that each worker reads ahead.
        transform: done to each labelled sweep where it is read (gt sampling).
        pool: see `SeededSampler`.

    Raises:
        ValueError: the sampler's settings do not fit, or pairs are to be transformed.
    """
    if transform is not None and kind != "labelled":
        raise ValueError("transform is for labelled sweeps; pairs are read as they are")
    if num_workers < 0:
        raise ValueError(f"num_workers must be at least 0 (read in this process), got {num_workers}")
    how = {"rank": rank, "world_size": world_size, "shuffle": shuffle, "drop_last": drop_last}
    sampler = SeededSampler(len(dataset), batch_size, seed, **how, pool=pool)
    return StatefulDataLoader(
        RequestedSamples(dataset, transform),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_COLLATES[kind],
        pin_memory=pin_memory,
        persistent_workers=persistent_workers and num_workers > 0,
        prefetch_factor=prefetch_factor,
        # The loader draws a base seed for its workers, by default from the global generator.
        generator=torch.Generator().manual_seed(seed),
    )


def place_in_epoch(loader: StatefulDataLoader) -> dict[str, int]:
    """Return where the sampler stood after the batch that the loader yielded last, whatever its workers read ahead.

    The loader's own `state_dict` holds it as well, but one of another number of workers is refused.
    """
    state = loader.state_dict()
    main = state["_snapshot"]["_main_snapshot"] if loader.num_workers else state
    return main["_sampler_iter_state"]["sampler_iter_state"]
