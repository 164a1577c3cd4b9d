"""What the processes of caching do: compute and store the flow of one pair, or measure a few."""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from equilidar.data.faults import Fault, FaultySweepError
from equilidar.data.packing_workers import die_with
from equilidar.flow.cache import FlowCache, KeyedPairs
from equilidar.flow.pose_check import check_poses, pair_problem, unknown_flow, widened
from equilidar.flow.protocol import FlowEstimator
from equilidar.structures import SweepPairBatch


class CachingError(RuntimeError):
    """Caching stopped; what was finished stays, and the same command goes on."""


@dataclass(frozen=True)
class PairWork:
    """How the flow of a pair is made and stored.

    Attributes:
        pairs: of the dataset.
        estimator: of the flow.
        cache: where it goes; its folder need not exist to measure.
        device: where it is computed.
    """

    pairs: KeyedPairs
    estimator: FlowEstimator
    cache: FlowCache
    device: torch.device

    def store(self, index: int) -> "Outcome":
        """Compute and store the flow of a pair.

        A pair that no flow can be found for gets the ego motion's, valid nowhere: training goes on without it.

        Raises:
            CachingError: it cannot be read, computed or written for another reason than a broken file.
        """
        key = self.pairs.keys[index]
        try:
            pair = self.pairs[index]
            problem = pair_problem(pair)
            batch = SweepPairBatch.collate([pair]).to(self.device)
            self.cache.write(batch, self.estimator(batch) if problem is None else unknown_flow(batch))
        except FaultySweepError as error:
            return Outcome(Fault(key, str(error)), is_stored=False)
        except (ValueError, ImportError, RuntimeError) as error:
            raise CachingError(f"{key}: {error}") from error
        except OSError as error:
            raise CachingError(f"{self.cache.path(key)} cannot be written ({error.strerror or error})") from error
        return Outcome(None if problem is None else Fault(key, f"no flow: {problem}"), is_stored=True)

    def measure(self, indices: Sequence[int], poses: bool) -> "Measurement":
        """Compute the flow of some pairs and store none; the first one also before the clock runs, which compiles.

        Args:
            indices: of the pairs.
            poses: check first that their ego motions are not the wrong way round.
        """
        remark = self._check_poses(indices) if poses else None
        num_bytes, seconds, num_read, problems = 0, 0.0, 0, []
        for place, index in enumerate([*indices[:1], *indices]):
            begin = time.perf_counter()
            try:
                pair = self.pairs[index]
                problem = pair_problem(pair)
                if problem is not None:
                    problems.append(problem)
                    continue
                batch = SweepPairBatch.collate([pair]).to(self.device)
                files = self.cache.encode(batch, self.estimator(batch))
            except FaultySweepError as error:
                problems.append(str(error))
                continue
            except (ValueError, ImportError, RuntimeError) as error:
                raise CachingError(f"{self.pairs.keys[index]}: {error}") from error
            if place:
                num_bytes += sum(len(content) for _, content in files)
                seconds += time.perf_counter() - begin
                num_read += 1
        return Measurement(num_bytes, seconds, num_read, problems[0] if problems else "", remark)

    def _check_poses(self, indices: Sequence[int]) -> str | None:
        pairs = []
        for index in indices:
            with contextlib.suppress(FaultySweepError):
                pairs.append(widened(self.pairs[index], self.pairs))
        try:
            return check_poses(pairs)
        except ValueError as error:
            raise CachingError(str(error)) from error


@dataclass(frozen=True)
class Outcome:
    """What became of a pair: what is wrong with it, if anything, and whether it has a file all the same."""

    fault: Fault | None
    is_stored: bool


@dataclass(frozen=True)
class Measurement:
    """What one process found for a few pairs.

    Attributes:
        num_bytes: that their flow takes.
        seconds: that it took.
        num_read: pairs that flow can be found for.
        problem: of the first of the others; "" where there is none.
        remark: why it cannot be told that the ego motions are the right way round; None where they are, or unasked.
    """

    num_bytes: int
    seconds: float
    num_read: int
    problem: str
    remark: str | None


# Of this process, set by `_start`.
_work: PairWork


def make_pool(work: PairWork, num_workers: int) -> ProcessPoolExecutor:
    """Return processes that do `work`; forked where that is safe: they share the dataset's lists with this one."""
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(num_workers, context, initializer=_start, initargs=(work, os.getpid()))


def store(index: int) -> Outcome:
    """Do it in a process of the pool."""
    return _work.store(index)


def measure(indices: Sequence[int], poses: bool) -> Measurement:
    """Do it in a process of the pool."""
    return _work.measure(indices, poses)


def _start(work: PairWork, parent: int) -> None:
    global _work
    _work = work
    torch.set_num_threads(1)
    gc.freeze()  # collections that went over the inherited objects would copy their pages
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=die_with, args=(parent,), daemon=True).start()
