"""Scene flow on disk: computed once, read by every run, and never for other data or settings than it was made for."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from equilidar.atomic_file import atomic_file
from equilidar.flow.fingerprint import fingerprint
from equilidar.flow.protocol import FlowEstimator, settings_of
from equilidar.flow.rigid import RigidFlow
from equilidar.structures import FlowField, SweepPair, SweepPairBatch

STAMP_FILE, FAULTS_FILE = "stamp.json", "faults.json"
FORMAT = 2
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class FlowStamp:
    """What made a cache's flow.

    Attributes:
        estimator: its name.
        settings: what decides its output.
        from_labels: whether annotations went into it.
        data: what it was computed for: the dataset's name, hash and number of pairs; empty where that was not told.
        format: version of the files.
    """

    estimator: str
    settings: Mapping[str, Any]
    from_labels: bool
    data: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def of(cls, estimator: FlowEstimator, data: Mapping[str, Any] | None = None) -> "FlowStamp":
        """Return the stamp of an estimator's flow."""
        # Through JSON, so that a stamp that was written equals the one that is read.
        settings = json.loads(json.dumps(settings_of(estimator)))
        return cls(estimator.name, settings, estimator.from_labels, json.loads(json.dumps(data or {})))

    def digest(self) -> str:
        """Return a short hash, held by each file; the data is not in it, each file has its own fingerprint of that."""
        made = {name: value for name, value in asdict(self).items() if name != "data"}
        return hashlib.blake2b(json.dumps(made, sort_keys=True).encode(), digest_size=16).hexdigest()

    def __str__(self) -> str:
        data = f" for {self.data['name']} ({self.data['hash']})" if self.data else ""
        return f"{self.estimator} {dict(self.settings)}{data}"


class FlowCache:
    """A folder with one file of flow per pair, and a stamp that says what made them.

    Files are named by a hash of the pair's key and hold key, stamp, fingerprint of the data, flow, validity and
    confidence; a file that was made for something else is an error, not a miss.

    Flow is kept as its difference to the ego motion's, in float16: points at rest are exact, and what moves over ground
    is off by at most 1 mm a coordinate below 4 m between the sweeps (40 m/s at 10 Hz), by 2^-11 of the motion beyond.
    Confidence is kept in steps of 1/255.
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
            content = json.loads(path.read_text())
            held = content.get("format")
            stamp = FlowStamp(**content) if held == FORMAT else None
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise ValueError(f"flow cache: {path} is no stamp ({error}); compute the cache anew") from None
        if stamp is None:
            raise ValueError(f"flow cache {directory} is of format {held}, not {FORMAT}: compute it anew elsewhere")
        return cls(directory, stamp)

    @classmethod
    def create(
        cls, directory: str | os.PathLike[str], estimator: FlowEstimator, data: Mapping[str, Any] | None = None
    ) -> "FlowCache":
        """Make a cache for an estimator's flow, or go on with one that is the same.

        Args:
            directory: its folder.
            estimator: whose flow it is.
            data: what it is for; see `FlowStamp`.

        Raises:
            ValueError: the folder holds flow that something else made, or that was made for other data.
        """
        stamp = FlowStamp.of(estimator, data)
        if (Path(directory) / STAMP_FILE).is_file():
            existing = cls.open(directory)
            if existing.stamp != stamp:
                raise ValueError(
                    f"flow cache {directory} was made by {existing.stamp}, not by {stamp}; choose another folder"
                )
            return existing
        write_json_file(Path(directory) / STAMP_FILE, asdict(stamp))
        return cls(directory, stamp)

    def path(self, key: str) -> Path:
        """Return the file of a pair; keys hold slashes and arrows, so a hash names it."""
        name = _name(key)
        return self.directory / name[:2] / f"{name}.npz"

    def missing(self, keys: Iterable[str]) -> list[int]:
        """Return the places of keys that have no file; lists folders instead of asking for each file."""
        there = {file.stem for folder in self.directory.glob("??") for file in folder.glob("*.npz")}
        return [place for place, key in enumerate(keys) if _name(key) not in there]

    def faults(self) -> dict[str, str]:
        """Return the pairs that could not be read when the cache was made, with the reason."""
        path = self.directory / FAULTS_FILE
        return json.loads(path.read_text()) if path.is_file() else {}

    def write(self, batch: SweepPairBatch, flow: FlowField) -> int:
        """Store the flow of a batch's pairs; return the number of bytes.

        Raises:
            ValueError: flow that float16 cannot hold: not finite where it is said to be valid, or kilometres long.
        """
        total = 0
        for key, content in self.encode(batch, flow):
            with atomic_file(self.path(key)) as file:
                file.write(content)
            total += len(content)
        return total

    def encode(self, batch: SweepPairBatch, flow: FlowField) -> list[tuple[str, bytes]]:
        """Return key and content of the file of each pair; raises as `write`."""
        prints, bounds = fingerprint(batch).tolist(), batch.source.offsets.tolist()
        residual = torch.where(flow.valid[:, None] | flow.flow.isfinite(), flow.flow - RigidFlow()(batch).flow, 0.0)
        too_far = ~(residual.abs() <= _LARGEST).all(1)
        if too_far.any():
            raise ValueError(
                f"flow of {batch.keys[int(batch.source.batch_index[too_far][0])]} by {self.stamp.estimator} is not "
                "finite or kilometres long where it is said to be valid"
            )
        columns = {
            "residual": residual.cpu().numpy().astype(np.float16),
            "valid": flow.valid.cpu().numpy(),
            "confidence": (flow.confidence.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy(),
        }
        files = []
        for i, key in enumerate(batch.keys):
            content = io.BytesIO()
            np.savez_compressed(
                content,
                key=np.array(key),
                stamp=np.array(self.stamp.digest()),
                fingerprint=np.array(prints[i], dtype=np.int64),
                **{name: column[bounds[i] : bounds[i + 1]] for name, column in columns.items()},
            )
            files.append((key, content.getvalue()))
        return files

    def read(self, batch: SweepPairBatch) -> FlowField:
        """Return the stored flow of a batch's pairs, on its device.

        Raises:
            FileNotFoundError: a pair is not in the cache.
            ValueError: a file is damaged, or was made for other data or by other settings.
        """
        # One wait for the device for all pairs.
        prints = fingerprint(batch).tolist()
        stored = [self._load(key, mark) for key, mark in zip(batch.keys, prints, strict=True)]
        residual, valid, confidence = (
            torch.from_numpy(np.concatenate([pair[name] for pair in stored])).to(batch.source.xyz.device)
            for name in ("residual", "valid", "confidence")
        )
        return FlowField(RigidFlow()(batch).flow + residual.float(), valid, confidence.float() / 255)

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
    """Compute and store the flow of all pairs that a cache does not hold yet, and return how many those were.

    One after the other in this process; `equilidar.flow_runs.caching` does it for whole datasets.
    """
    cache = FlowCache.create(directory, estimator)
    missing = cache.missing(pairs.keys)
    for index in missing:
        batch = SweepPairBatch.collate([pairs[index]]).to(device)
        cache.write(batch, estimator(batch))
    return len(missing)


def write_json_file(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON, atomically."""
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def _name(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
