"""Scene flow on disk: computed once, read by every run, and never for other data or settings than it was made for."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from equilidar.flow.fingerprint import fingerprint
from equilidar.flow.protocol import FlowEstimator, settings_of
from equilidar.structures import FlowField, SweepPair, SweepPairBatch

STAMP_FILE = "stamp.json"
FORMAT = 1


@dataclass(frozen=True)
class FlowStamp:
    """What made a cache's flow.

    Attributes:
        estimator: its name.
        settings: what decides its output.
        from_labels: whether annotations went into it.
        format: version of the files.
    """

    estimator: str
    settings: Mapping[str, Any]
    from_labels: bool
    format: int = FORMAT

    @classmethod
    def of(cls, estimator: FlowEstimator) -> "FlowStamp":
        """Return the stamp of an estimator's flow."""
        # Through JSON, so that a stamp that was written equals the one that is read.
        return cls(estimator.name, json.loads(json.dumps(settings_of(estimator))), estimator.from_labels)

    def digest(self) -> str:
        """Return a short hash, held by each file."""
        return hashlib.blake2b(json.dumps(asdict(self), sort_keys=True).encode(), digest_size=16).hexdigest()


class FlowCache:
    """A folder with one file of flow per pair, and a stamp that says what made them.

    Files are named by a hash of the pair's key and hold key, stamp, fingerprint of the data, flow, validity and
    confidence; a file that was made for something else is an error, not a miss.
    """

    def __init__(self, directory: str | os.PathLike[str], stamp: FlowStamp) -> None:
        self.directory, self.stamp = Path(directory), stamp

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> "FlowCache":
        """Open an existing cache.

        Raises:
            FileNotFoundError: there is none.
            ValueError: its stamp cannot be read, or is of another format.
        """
        path = Path(directory) / STAMP_FILE
        if not path.is_file():
            raise FileNotFoundError(f"no flow cache at {directory} ({STAMP_FILE} is missing): compute one there first")
        try:
            stamp = FlowStamp(**json.loads(path.read_text()))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"flow cache: {path} is no stamp ({error}); compute the cache anew") from None
        if stamp.format != FORMAT:
            raise ValueError(f"flow cache {directory} is of format {stamp.format}, not {FORMAT}: recompute it")
        return cls(directory, stamp)

    @classmethod
    def create(cls, directory: str | os.PathLike[str], estimator: FlowEstimator) -> "FlowCache":
        """Make a cache for an estimator's flow, or go on with one that is the same.

        Raises:
            ValueError: the folder holds flow that something else made.
        """
        stamp = FlowStamp.of(estimator)
        if (Path(directory) / STAMP_FILE).is_file():
            existing = cls.open(directory)
            if existing.stamp != stamp:
                raise ValueError(
                    f"flow cache {directory} was made by {existing.stamp}, not by {stamp}; choose another folder"
                )
            return existing
        Path(directory).mkdir(parents=True, exist_ok=True)
        _write_atomically(Path(directory) / STAMP_FILE, json.dumps(asdict(stamp), indent=2).encode())
        return cls(directory, stamp)

    def path(self, key: str) -> Path:
        """Return the file of a pair; keys hold slashes and arrows, so a hash names it."""
        name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        return self.directory / name[:2] / f"{name}.npz"

    def write(self, batch: SweepPairBatch, field: FlowField) -> None:
        """Store the flow of a batch's pairs."""
        prints, bounds = fingerprint(batch).tolist(), batch.source.offsets.tolist()
        flow, valid, confidence = (x.cpu().numpy() for x in (field.flow, field.valid, field.confidence))
        for i, key in enumerate(batch.keys):
            rows = slice(bounds[i], bounds[i + 1])
            path = self.path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
                np.savez_compressed(
                    file,
                    key=np.array(key),
                    stamp=np.array(self.stamp.digest()),
                    fingerprint=np.array(prints[i], dtype=np.int64),
                    flow=flow[rows].astype(np.float32),
                    valid=valid[rows],
                    confidence=confidence[rows].astype(np.float32),
                )
            Path(file.name).replace(path)

    def read(self, batch: SweepPairBatch) -> FlowField:
        """Return the stored flow of a batch's pairs, on its device.

        Raises:
            FileNotFoundError: a pair is not in the cache.
            ValueError: a file is damaged, or was made for other data or by other settings.
        """
        # One wait for the device for all pairs.
        prints = fingerprint(batch).tolist()
        stored = [self._load(key, mark) for key, mark in zip(batch.keys, prints, strict=True)]
        device = batch.source.xyz.device
        columns = [
            torch.from_numpy(np.concatenate([pair[name] for pair in stored])).to(device)
            for name in ("flow", "valid", "confidence")
        ]
        return FlowField(*columns)

    def _load(self, key: str, mark: int) -> dict[str, np.ndarray]:
        path = self.path(key)
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name] for name in file.files}
                held, stamp, own = str(stored["key"]), str(stored["stamp"]), int(stored["fingerprint"])
        except FileNotFoundError:
            raise FileNotFoundError(
                f"flow cache {self.directory} holds no flow of pair {key}: compute it for this dataset, split and gap"
            ) from None
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"flow cache: {path} is damaged ({error}); delete it and compute it anew") from None
        if held != key or stamp != self.stamp.digest():
            raise ValueError(
                f"flow cache: {path} was made for pair {held} by other settings than {self.stamp}; delete it and "
                "compute it anew"
            )
        if own != mark:
            raise ValueError(
                f"flow cache {self.directory}: the sweeps of pair {key} (points, poses or gap) are not those whose "
                "flow was stored; compute it anew in another folder"
            )
        return stored


@runtime_checkable
class KeyedPairs(Protocol):
    """Sweep pairs by index, with their keys."""

    @property
    def keys(self) -> Sequence[str]: ...

    def __getitem__(self, index: int, /) -> SweepPair: ...


def precompute(
    pairs: KeyedPairs,
    estimator: FlowEstimator,
    directory: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
) -> int:
    """Compute and store the flow of all pairs that a cache does not hold yet, and return how many those were."""
    cache = FlowCache.create(directory, estimator)
    missing = [index for index, key in enumerate(pairs.keys) if not cache.path(key).is_file()]
    for index in missing:
        batch = SweepPairBatch.collate([pairs[index]]).to(device)
        cache.write(batch, estimator(batch))
    return len(missing)


def _write_atomically(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        file.write(content)
    Path(file.name).replace(path)
