"""What packing will take, told before it starts: bytes, time, memory."""

import resource
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """What one process found when it packed a few sweeps.

    Attributes:
        num_bytes: written.
        seconds: of reading and writing.
        num_read: sweeps; the others were faulty.
        memory: bytes, the most that the process ever held.
    """

    num_bytes: int
    seconds: float
    num_read: int
    memory: int


@dataclass(frozen=True)
class Estimate:
    """What packing will take.

    Attributes:
        num_sweeps: to be packed, without those that are finished.
        num_files: likewise.
        num_bytes: that they will need.
        seconds: that it will take.
        num_workers: processes that will read: as many as asked for, files and memory allow.
        worker_memory: bytes that each of them holds at most.
    """

    num_sweeps: int
    num_files: int
    num_bytes: int
    seconds: float
    num_workers: int
    worker_memory: int

    @classmethod
    def of(cls, found: Measurement, num_sweeps: int, num_files: int, num_workers: int, max_memory: float) -> "Estimate":
        """Extrapolate.

        Args:
            found: of a few sweeps.
            num_sweeps: to be packed.
            num_files: likewise.
            num_workers: that may read.
            max_memory: bytes, of all processes together; one of them reads in any case.
        """
        fitting = int((max_memory - peak_memory()) // found.memory)
        workers = max(1, min(num_workers, num_files, fitting))
        per_sweep = num_sweeps / found.num_read
        return cls(
            num_sweeps,
            num_files,
            int(found.num_bytes * per_sweep),
            found.seconds * per_sweep / workers,
            workers,
            found.memory,
        )


def peak_memory() -> int:
    """Return the bytes of memory that this process held at most, pages that it shares with others included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
