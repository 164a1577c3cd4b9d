"""Pairs from a packed store (tools/prepare.py). Knows no labels, and refuses a store that holds any."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equilidar.data.listing import content_hash
from equilidar.data.packed_file import PackedFiles
from equilidar.data.packed_index import read_index
from equilidar.structures import SensorContract, Sweep, SweepPair


class PackedPairs:
    """Pairs of sweeps `gap` apart within runs of consecutive sweeps. The points are not copied: they lie in a map.

    Attributes:
        index: of the store.
        gap: in sweeps.
        keys: "source key->target key", in the order of the dataset that was packed.

    Raises:
        FileNotFoundError: no store, or one that is not finished.
        ValueError: a store of another kind or schema version, a damaged one, or no pair is left.
    """

    def __init__(
        self, root: str | Path, gap: int | None = None, sequences: list[str] | tuple[str, ...] | None = None
    ) -> None:
        """List the pairs.

        Args:
            root: the store's folder.
            gap: sweeps from source to target; None for that of the dataset that was packed.
            sequences: names ("kitti_raw/2011_09_26_drive_0048_sync", or its last part); None for all.
        """
        self.index = read_index(Path(root), "pairs")
        self.name: str = self.index.name
        self.contract: SensorContract = self.index.contract
        self.gap = self.index.plan["gap"] if gap is None else gap
        if self.gap < 1:
            raise ValueError(f"dataset.gap must be at least 1 sweep, got {gap}")
        self.sequences = None if sequences is None else list(sequences)
        columns = self.index.sweeps()
        chosen = self._chosen(columns["file"])
        columns = {name: column[chosen] for name, column in columns.items()}
        self._files = PackedFiles(self.index.paths)
        self._file, self._row = columns["file"], columns["row"]
        self.sweep_keys: list[str] = columns["key"].tolist()
        self._pairs = pairs_of(columns, self.gap)
        self.keys = [f"{self.sweep_keys[i]}->{self.sweep_keys[j]}" for i, j in self._pairs.tolist()]
        if not self.keys:
            raise ValueError(f"{root}: no two sweeps with poses are {self.gap} apart; choose another dataset.gap")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> SweepPair:
        """Return pair `index`; raises FaultySweepError where one of its sweeps is damaged."""
        first, second = self._pairs[index].tolist()
        source, target = self.sweep(first), self.sweep(second)
        assert source.world_T_sensor is not None and target.world_T_sensor is not None
        return SweepPair(source, target, torch.linalg.inv(target.world_T_sensor) @ source.world_T_sensor)

    @property
    def num_sweeps(self) -> int:
        return len(self.sweep_keys)

    def sweep(self, index: int) -> Sweep:
        """Return sweep `index` of all runs, in order."""
        file = self._files[int(self._file[index])]
        return file.sweep(file.row(int(self._row[index]), self.sweep_keys[index]), self.contract)

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data; the hash covers every byte of the store."""
        return {
            "name": self.name,
            "num_samples": len(self),
            "num_sweeps": self.num_sweeps,
            "gap": self.gap,
            "sequences": self.sequences,
            "hash": content_hash([self.index.hash, self.gap, self.sequences]),
            **self.index.provenance(),
        }

    def _chosen(self, file: np.ndarray) -> np.ndarray:
        """Tell which sweeps are of the sequences that were asked for."""
        if self.sequences is None:
            return np.ones(len(file), dtype=bool)
        names = [one.sequence for one in self.index.files]
        for wanted in self.sequences:
            if not any(_is_named(name, wanted) for name in names):
                raise ValueError(f"dataset.sequences: no {wanted!r} in the store; there are {', '.join(names[:10])}")
        chosen = [any(_is_named(name, wanted) for wanted in self.sequences) for name in names]
        return np.asarray(chosen, dtype=bool)[file]


def _is_named(sequence: str, wanted: str) -> bool:
    return sequence == wanted or sequence.endswith(f"/{wanted}")


def pairs_of(sweeps: Mapping[str, np.ndarray], gap: int) -> np.ndarray:
    """Return (P, 2) rows of sweeps with poses that are `gap` positions apart in the same run, in order.

    Args:
        sweeps: columns of (S,): `run` of consecutive sweeps, `position` in it (a sweep that could not be read leaves a
            hole), `has_pose`, and `is_target`, whether the sweep may be the later one.
        gap: positions from source to target.
    """
    run, position, has_pose = sweeps["run"], sweeps["position"], sweeps["has_pose"]
    width = int(position.max(initial=0)) + gap + 1
    code = run.astype(np.int64) * width + position
    order = np.argsort(code, kind="stable")
    place = np.searchsorted(code[order], code + gap).clip(max=max(len(code) - 1, 0))
    partner = order[place] if len(code) else order
    found = (code[partner] == code + gap) & has_pose & has_pose[partner] & sweeps["is_target"][partner]
    return np.stack([np.flatnonzero(found), partner[found]], 1)
