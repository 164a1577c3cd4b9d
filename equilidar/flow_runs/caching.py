"""Caches the scene flow of a dataset beside its sweeps: parallel, resumable, nothing ever half-written."""

import contextlib
import shutil
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from equilidar.data.faults import FaultBudget
from equilidar.data.listing import content_hash
from equilidar.data.packing_plan import spread
from equilidar.data.packing_progress import Progress, size_text, time_text
from equilidar.data.protocols import LabelledDataset, PairDataset, provenance_of
from equilidar.flow import FlowEstimator, bound
from equilidar.flow.cache import FAULTS_FILE, FlowCache, FlowStamp, write_json_file
from equilidar.flow_runs.cache_workers import CachingError, Measurement, Outcome, PairWork, make_pool, measure, store
from equilidar.nn.device import device_of

_MEASURED = 4


@dataclass(frozen=True)
class Estimate:
    """What is left to do will take: pairs, bytes, seconds; and what is to be said of its poses, if anything."""

    num_pairs: int
    num_bytes: int
    seconds: float
    remark: str | None = None


class Caching:
    """Computes and stores the flow of a dataset's pairs, one file each.

    A pair whose file is there is finished, whatever ended the last attempt.

    Attributes:
        cache: where the flow goes.
        todo: indices of the pairs that are not finished.

    Raises:
        ValueError: the dataset gives no pairs, settings are out of range, or the folder holds other flow.
    """

    def __init__(
        self,
        dataset: PairDataset,
        estimator: FlowEstimator,
        output: str | Path | None,
        beside: Path,
        *,
        num_workers: int = 2,
        num_pairs: int | None = None,
        device: str = "cpu",
        faults: FaultBudget | None = None,
        check_poses: bool = True,
    ) -> None:
        """Look at what there is; nothing is written yet.

        Args:
            dataset: of pairs.
            estimator: of the flow.
            output: the cache's folder; None for one in `beside` that is named by the estimator and a hash of its
                settings and the data.
            beside: where the dataset lies.
            num_workers: processes that compute; on a GPU it is this one.
            num_pairs: of the dataset, spread over it; None for all.
            device: where flow is computed; "auto" takes the GPU where there is one.
            faults: how many pairs may be unreadable, or such that no flow can be found for them.
            check_poses: refuse ego motions that are the wrong way round.
        """
        if num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {num_workers}")
        if not isinstance(dataset, PairDataset) or isinstance(dataset, LabelledDataset):
            raise ValueError("dataset yields no pairs of sweeps: choose one for pretraining (not *_labelled)")
        if num_pairs is not None and not 1 <= num_pairs <= len(dataset):
            raise ValueError(f"num_pairs must lie in 1..{len(dataset)}, the pairs of {dataset.name}, got {num_pairs}")
        estimator = bound(estimator, dataset)
        whole = provenance_of(dataset)
        data = {"name": dataset.name, "hash": whole["hash"], "num_pairs": len(dataset)}
        stamp = FlowStamp.of(estimator, data)
        if output is None:
            output = beside / "flow_cache" / f"{estimator.name}-{content_hash([stamp.digest(), data])[:8]}"
        self.cache = FlowCache(output, stamp)
        if (self.cache.directory / "stamp.json").is_file():
            FlowCache.create(output, estimator, data)  # raises where it is another's
        elif self.cache.directory.is_dir() and any(self.cache.directory.iterdir()):
            raise ValueError(f"output {output} holds files that are no flow cache; choose another folder")
        self._estimator, self._data, self._num_workers = estimator, data, num_workers
        self._check_poses, self._budget = check_poses, faults or FaultBudget()
        self._work = PairWork(dataset, estimator, self.cache, device_of(device))
        chosen = spread(len(dataset), num_pairs or len(dataset))
        self._known_faults = self.cache.faults()
        keys = dataset.keys
        missing = self.cache.missing(keys[index] for index in chosen)
        self.todo = [chosen[place] for place in missing if keys[chosen[place]] not in self._known_faults]
        self.num_chosen = len(chosen)

    def estimate(self) -> Estimate:
        """Compute a few pairs in a process of its own, and extrapolate."""
        if not self.todo:
            return Estimate(0, 0, 0.0)
        chosen = [self.todo[i] for i in spread(len(self.todo), _MEASURED)]
        if self._work.device.type == "cpu":
            with make_pool(self._work, 1) as pool, _errors():
                found = pool.submit(measure, chosen, self._check_poses).result()
        else:
            found = self._work.measure(chosen, self._check_poses)
        return self._extrapolated(found, len(chosen))

    def describe(self, estimate: Estimate) -> str:
        """Return what will be done, in lines for the user."""
        done = self.num_chosen - estimate.num_pairs
        free = shutil.disk_usage(_existing(self.cache.directory)).free
        labels = ", from labels" if self.cache.stamp.from_labels else ""
        remark = f"note: {estimate.remark}\n" if estimate.remark else ""
        return (
            f"{remark}{self.cache.stamp.estimator}{labels}: flow of {estimate.num_pairs} pairs of {self._data['name']} "
            f"to compute{f' ({done} are there already)' if done else ''}\n"
            f"about {size_text(estimate.num_bytes)} in {self.cache.directory} ({size_text(free)} are free), "
            f"about {time_text(estimate.seconds)} with {self.num_workers} process(es)"
        )

    @property
    def num_workers(self) -> int:
        """Processes that compute."""
        return max(1, min(self._num_workers, len(self.todo))) if self._work.device.type == "cpu" else 1

    def check_space(self, estimate: Estimate) -> None:
        """Raise OSError where the disk cannot hold the flow."""
        free = shutil.disk_usage(_existing(self.cache.directory)).free
        if estimate.num_bytes > free:
            raise OSError(
                f"output {self.cache.directory} needs about {size_text(estimate.num_bytes)}, but only "
                f"{size_text(free)} are free there: free some, or choose another output"
            )

    def run(self) -> str:
        """Compute what is not there yet; return what to tell about the finished cache.

        Raises:
            CachingError: a pair could not be computed or stored.
            TooManyFaultsError: more pairs that cannot be read, or have no flow, than allowed.
        """
        try:
            FlowCache.create(self.cache.directory, self._estimator, self._data)
        except OSError as error:
            raise OSError(
                f"{self.cache.directory} cannot be written to ({error.strerror or error}): set output=FOLDER"
            ) from error
        for leftover in self.cache.directory.glob("??/.*.partial"):
            leftover.unlink(missing_ok=True)
        faults = dict(self._known_faults)
        with Progress(len(self.todo), "pair") as bar:
            for done, outcome in enumerate(self._outcomes(), 1):
                bar.show(done)
                for new in self._budget.observe(1, [outcome.fault] if outcome.fault else []):
                    print(f"{'' if outcome.is_stored else 'skipped '}{new.key}: {new.reason}", flush=True)
                    if not outcome.is_stored:
                        faults[new.key] = new.reason
        if faults != self._known_faults:
            write_json_file(self.cache.directory / FAULTS_FILE, faults)
        skipped = f", {len(faults)} could not be read" if faults else ""
        return (
            f"{self.num_chosen - len(faults)} pairs in {self.cache.directory}{skipped}\n"
            f"to use them: flow=precomputed flow.directory={self.cache.directory}"
        )

    def _outcomes(self) -> Iterator[Outcome]:
        if self._work.device.type != "cpu":
            yield from (self._work.store(index) for index in self.todo)
            return
        pool = make_pool(self._work, self.num_workers)
        try:
            with _errors():
                yield from pool.map(store, self.todo)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _extrapolated(self, found: Measurement, num_tried: int) -> Estimate:
        if found.num_read == 0:
            first = self._work.pairs.keys[self.todo[0]]
            raise CachingError(f"no flow can be found for {first} and {num_tried - 1} others: {found.problem}")
        per_pair = len(self.todo) / found.num_read
        seconds = found.seconds * per_pair / self.num_workers
        return Estimate(len(self.todo), int(found.num_bytes * per_pair), seconds, found.remark)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Make what processes of a pool raise, and their sudden end, an error of this process."""
    try:
        yield
    except CachingError as error:
        # Raised anew: to the command line, what a process of the pool raised looks like no error of ours.
        raise CachingError(str(error)) from error
    except BrokenProcessPool as error:
        raise CachingError(
            "a process died (was it killed for its memory?); run again to go on, with fewer num_workers"
        ) from error


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
