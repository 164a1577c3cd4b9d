"""Batches on their way from a loader's worker to the training process, through shared memory that is used again.

Sending a tensor the usual way makes a new piece of shared memory for it, whose pages the kernel must find and clear,
and a handshake for its file descriptor: for a pair of full sweeps several times as long as copying its points takes.
Here a worker keeps a few slabs. It concatenates a batch's points right into one; the training process maps each slab
once, and marks it free when the last tensor of the batch is gone.
"""

import io
import itertools
import os
import pickle
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

Concatenate = Callable[[Sequence[Tensor]], Tensor]

_HEADER = 64  # bytes; the first one tells whether the slab is in use. Also what tensors are aligned to.
_INLINE = 4096  # bytes up to which a tensor travels within the message
_ROOM = 1.25  # sweeps differ in size; so do batches


class Slab:
    """Shared memory of a worker.

    Attributes:
        memory: (bytes,) uint8.
        number: among this worker's slabs.
        is_sent: the training process has mapped it, or will before anything that is sent later.
    """

    def __init__(self, capacity: int, number: int) -> None:
        storage = torch.UntypedStorage._new_shared(capacity)
        self.memory = torch.empty(0, dtype=torch.uint8).set_(storage)
        self.number, self.is_sent = number, False

    @property
    def is_free(self) -> bool:
        return int(self.memory[0]) == 0

    def set_free(self, is_free: bool) -> None:
        """Mark it; the training process does the same to its own mapping."""
        self.memory[0] = 0 if is_free else 1


# The slabs of this process, if it is a worker.
_slabs: list[Slab] = []
_numbers = itertools.count()


class Arena:
    """Room in a slab for the tensors of one batch; in a process that is no worker, ordinary memory.

    Usage:
        with Arena(num_bytes) as arena:
            batch = SweepPairBatch.collate(pairs, seeds, concatenate=arena.concatenate)
    """

    def __init__(self, num_bytes: int) -> None:
        """Find or make a slab that holds `num_bytes` of tensors."""
        self._slab = None if get_worker_info() is None else _free_slab(_HEADER + num_bytes)
        self._used = _HEADER

    def __enter__(self) -> "Arena":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._slab is not None:
            self._slab.set_free(True)

    def concatenate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the concatenation along the first dimension."""
        first, rows = tensors[0], sum(len(tensor) for tensor in tensors)
        size = rows * first[:0].new_empty(1, *first.shape[1:]).nbytes
        if self._slab is None or self._used + size > len(self._slab.memory):
            return torch.cat(list(tensors))
        room = self._slab.memory[self._used : self._used + size].view(first.dtype).view(rows, *first.shape[1:])
        self._used += -(-size // _HEADER) * _HEADER
        return torch.cat(list(tensors), out=room)


def room_for(tensors: Sequence[Tensor]) -> int:
    """Return the bytes that concatenations of these tensors need in an arena, however they are grouped."""
    return sum(tensor.nbytes + _HEADER for tensor in tensors)


def _free_slab(capacity: int) -> Slab:
    """Return a slab that nobody uses, marked as used."""
    free = [slab for slab in _slabs if slab.is_free]
    found = next((slab for slab in free if len(slab.memory) >= capacity), None)
    if found is None:
        for slab in free:
            _slabs.remove(slab)  # too small: batches have grown
        found = Slab(int(capacity * _ROOM), next(_numbers))
        _slabs.append(found)
    found.set_free(False)
    return found


def pack(value: Any) -> tuple[Any, ...]:
    """Return the arguments of `unpack`, to be sent: small tensors within, those of a slab by their place in it."""
    message = io.BytesIO()
    pickler = _Packer(message)
    pickler.dump(value)
    slab = pickler.slab
    if slab is None:
        return message.getvalue(), pickler.others
    memory, slab.is_sent = None if slab.is_sent else slab.memory, True
    return message.getvalue(), pickler.others, (os.getpid(), slab.number), memory


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.slab: Slab | None = None
        self.others: list[Tensor] = []

    def persistent_id(self, obj: Any) -> Any:
        """Take tensors out of the message."""
        if not isinstance(obj, Tensor):
            return None
        slab = next((one for one in _slabs if one.memory.data_ptr() == obj.untyped_storage().data_ptr()), None)
        if slab is not None and obj.is_contiguous():
            self.slab = slab
            return "slab", obj.storage_offset() * obj.element_size(), obj.nbytes, obj.dtype, tuple(obj.shape)
        if obj.device.type == "cpu" and obj.nbytes <= _INLINE and obj.dtype != torch.bfloat16:
            return "inline", obj.detach().numpy()
        self.others.append(obj)
        return "other", len(self.others) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, others: list[Tensor], lease: Tensor | None) -> None:
        super().__init__(file)
        self._others, self._lease = others, lease

    def persistent_load(self, pid: Any) -> Tensor:
        """Put tensors back."""
        if pid[0] == "inline":
            return torch.from_numpy(pid[1])
        if pid[0] == "other":
            return self._others[pid[1]]
        assert self._lease is not None
        _, offset, size, dtype, shape = pid
        return self._lease[offset : offset + size].view(dtype).view(shape)


# The slabs of workers that this process has mapped, by process and number.
_mapped: dict[tuple[int, int], np.ndarray] = {}


def unpack(
    message: bytes, others: list[Tensor], name: tuple[int, int] | None = None, memory: Tensor | None = None
) -> Any:
    """Return what was packed.

    Args:
        message: the value without its tensors.
        others: tensors that were sent the usual way.
        name: process and number of the slab that holds the rest.
        memory: that slab, when it is named for the first time.
    """
    if name is None:
        return _Unpacker(io.BytesIO(message), others, None).load()
    if memory is not None:
        for gone in [known for known in _mapped if not _is_running(known[0])]:
            del _mapped[gone]
        _mapped[name] = memory.numpy()
    # A new array for each batch: torch holds it as long as any tensor of the batch lives.
    lease = _mapped[name][:]
    weakref.finalize(lease, _release, _mapped[name]).atexit = False
    return _Unpacker(io.BytesIO(message), others, torch.from_numpy(lease)).load()


def _release(slab: np.ndarray) -> None:
    slab[0] = 0


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
