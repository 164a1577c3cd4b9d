"""Which sample comes when: seeded, resumable in mid-epoch, and the same whatever the number of processes."""

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class SampleRequest(NamedTuple):
    """What a sampler asks a dataset for.

    Attributes:
        index: of the sample.
        seed: the sample's own seed, from run seed, epoch and index.
        padding: filler that keeps the number of batches equal over processes; it is never loaded.
    """

    index: int
    seed: int
    padding: bool = False


def sample_seed(run_seed: int, epoch: int, index: int) -> int:
    """Return a seed in [0, 2**63) that depends on these three alone, not on process, worker or batch."""
    word = np.random.SeedSequence([run_seed, epoch, index]).generate_state(1, np.uint64)[0]
    return int(word >> np.uint64(1))


class SeededSampler:
    """Yields `SampleRequest`s of one process.

    Step k of an epoch is global batch k: `world_size * batch_size` samples in a row of the epoch's order, of which
    process `rank` gets the rank-th slice. So the union over the processes equals the batch of a single process with the
    same global batch size.

    Iterating yields the epoch that `set_epoch` named or, without it, the one after the last finished. The iterator has
    `state_dict` and `load_state_dict` over {epoch, position} and what these mean: a stateful loader resumes where it
    stood, and refuses a state of other data, batches or processes.

    Attributes:
        epoch: the next one to be yielded.

    Raises:
        ValueError: no samples, settings out of range, or fewer samples than a global batch with `drop_last`.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = True,
        pool: Sequence[int] | None = None,
    ) -> None:
        """Set up the order.

        Args:
            num_samples: size of the dataset.
            batch_size: per process.
            seed: of the run; the same in all processes.
            rank: of this process.
            world_size: number of processes.
            shuffle: new order every epoch; otherwise 0, 1, 2 ...
            drop_last: leave out the rest that fills no global batch (training). Otherwise every sample is yielded
                exactly once, and the last batches are filled with padding (evaluation).
            pool: the samples of an epoch, if they are others than each one once: with repetitions, for instance
                (`balanced_pool`). Repetitions have seeds of their own.
        """
        whole, num_samples = num_samples, num_samples if pool is None else len(pool)
        if num_samples < 1 or batch_size < 1 or seed < 0:
            raise ValueError(
                f"sampler: num_samples {num_samples} and batch_size {batch_size} must be positive, seed {seed} not "
                "negative"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"sampler: rank {rank} must lie in [0, world_size {world_size})")
        if drop_last and num_samples < batch_size * world_size:
            raise ValueError(
                f"sampler: {num_samples} samples do not fill one global batch of {batch_size} x {world_size} "
                "processes; use a smaller batch_size"
            )
        self._pool = None if pool is None else np.asarray(pool, dtype=np.int64)
        if self._pool is not None and not ((self._pool >= 0) & (self._pool < whole)).all():
            raise ValueError(f"sampler: pool names samples outside 0..{whole - 1}")
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.shuffle, self.drop_last = shuffle, drop_last
        self.epoch = 0
        self._place: dict[str, int] | None = None

    @property
    def num_batches(self) -> int:
        """Steps of an epoch, the same in every process."""
        whole, rest = divmod(self.num_samples, self.batch_size * self.world_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def __len__(self) -> int:
        return self.num_batches * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch that the next iteration yields (called by Lightning)."""
        self.epoch = epoch

    def resume(self, place: dict[str, int]) -> None:
        """Let the next iteration begin where an iterator's `state_dict` says; see `SamplerIterator.load_state_dict`."""
        self._place = place
        SamplerIterator(self).load_state_dict(place)

    def __iter__(self) -> "SamplerIterator":
        iterator = SamplerIterator(self)
        if self._place is not None:
            iterator.load_state_dict(self._place)
        return iterator

    def begin(self) -> None:
        """Forget the place to resume from: an iterator has begun there. Loaders make iterators that they never use."""
        self._place = None

    def identity(self) -> dict[str, int]:
        """Return what a position in the order depends on."""
        names = ("num_samples", "batch_size", "world_size", "seed", "shuffle", "drop_last")
        identity = {name: int(getattr(self, name)) for name in names}
        return identity if self._pool is None else {**identity, "pool": zlib.crc32(self._pool.tobytes())}

    def requests(self, epoch: int) -> list[SampleRequest]:
        """Return the requests of this process in `epoch`, in order."""
        order = np.arange(self.num_samples)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
        padded = np.full(self.num_batches * self.world_size * self.batch_size, -1, dtype=np.int64)
        kept = min(len(padded), self.num_samples)
        padded[:kept] = order[:kept]
        mine = padded.reshape(self.num_batches, self.world_size, self.batch_size)[:, self.rank].reshape(-1)
        pool = range(self.num_samples) if self._pool is None else self._pool.tolist()
        return [
            SampleRequest(pool[index], sample_seed(self.seed, epoch, index))
            if index >= 0
            else SampleRequest(0, 0, padding=True)
            for index in mine.tolist()
        ]


class SamplerIterator(Iterator[SampleRequest]):
    """One epoch of a `SeededSampler`."""

    def __init__(self, sampler: SeededSampler) -> None:
        self._sampler = sampler
        self._epoch = sampler.epoch
        self._position = 0
        self._requests: list[SampleRequest] | None = None

    def __next__(self) -> SampleRequest:
        if self._requests is None:
            self._sampler.begin()
            self._requests = self._sampler.requests(self._epoch)
        if self._position >= len(self._requests):
            self._sampler.epoch = self._epoch + 1
            raise StopIteration
        request = self._requests[self._position]
        self._position += 1
        return request

    def state_dict(self) -> dict[str, int]:
        """Return where this iterator stands."""
        return {"epoch": self._epoch, "position": self._position, **self._sampler.identity()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Stand where `state` says; an epoch that was finished lets the next iteration start the one after it.

        Raises:
            ValueError: the state is of other data, batches, processes or seed: its position would mean other samples.
        """
        for name, value in self._sampler.identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"cannot resume: the checkpoint was made with {name} {state.get(name)}, this run has {value}; "
                    "resume with the same data and settings, or start a new run"
                )
        self._epoch, self._position = state["epoch"], state["position"]
        self._requests = None
        self._sampler.epoch = self._epoch + (1 if self._position >= len(self._sampler) else 0)
