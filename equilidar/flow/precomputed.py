"""Flow that is read: from a cache of ours, or from files that others made."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equilidar.flow.cache import STAMP_FILE, FlowCache, KeyedPairs
from equilidar.flow.flow_files import Argoverse2Files, FlowFiles, OpenSceneFlowFiles, read_files
from equilidar.structures import FlowField, SweepPairBatch


class PrecomputedFlow:
    """Reads what an estimator stored; as label-free as that estimator was.

    The folder is a cache of `tools/flow.py`, or holds Argoverse 2's flow files (`<log>/<time>.feather`) or
    OpenSceneFlow's (`<sequence>.h5`). Files of others count as from labels, which those of the benchmarks are, unless
    `from_labels` says that a label-free estimator made them.

    Attributes:
        allow_labels: the user's leave, where the stored flow is from labels.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        estimator: str | None = None,
        settings: Mapping[str, Any] | None = None,
        allow_labels: bool = False,
        column: str = "flow",
        from_labels: bool | None = None,
    ) -> None:
        """Open the folder.

        Args:
            directory: of the cache or the files.
            estimator: name of the estimator that must have made a cache; None takes any.
            settings: settings that it must have had, those named here; None takes any.
            allow_labels: the user's leave.
            column: of h5 files: "flow" is the annotation, estimates have names of their own.
            from_labels: of files that others made; None for True. A cache knows it itself.

        Raises:
            FileNotFoundError: there is neither a cache nor a file of flow.
            ValueError: it was made by another estimator or with other settings, or `from_labels` is given for a cache
                that says otherwise.
        """
        self.allow_labels = allow_labels
        self._cache: FlowCache | None = None
        self._files = None if (Path(directory) / STAMP_FILE).is_file() else _files(Path(directory), column)
        if self._files is None:
            self._cache = FlowCache.open(directory)
            stamp = self._cache.stamp
            made, self.settings, self.from_labels = stamp.estimator, stamp.settings, stamp.from_labels
            if from_labels not in (None, stamp.from_labels):
                raise ValueError(f"flow.from_labels={from_labels}, but the cache {directory} says {stamp.from_labels}")
        else:
            made, self.settings = self._files.name, self._files.settings
            self.from_labels = from_labels is None or from_labels
        self.name = f"precomputed_{made}"
        if estimator not in (None, made):
            raise ValueError(f"flow.estimator={estimator}, but the cache {directory} was made by {made}")
        for name, value in (settings or {}).items():
            if name not in self.settings or self.settings[name] != value:
                raise ValueError(
                    f"flow.settings.{name}={value}, but the cache {directory} was made with {dict(self.settings)}"
                )

    def check(self, pairs: KeyedPairs) -> None:
        """Refuse pairs that the flow was not made for, before a run begins.

        In a cache every pair must be there, but for those that could not be read when it was made; the sweeps of the
        first one are compared. (Each pair is compared again when it is read.)

        Raises:
            FileNotFoundError: pairs are missing.
            ValueError: the first pair's sweeps are others.
        """
        faulty: dict[str, str] = {}
        if self._cache is not None:
            faulty = self._cache.faults()
            missing = [place for place in self._cache.missing(pairs.keys) if pairs.keys[place] not in faulty]
            if missing:
                data = self._cache.stamp.data
                about = f"; it was made for {data['num_pairs']} pairs of {data['name']}" if data else ""
                raise FileNotFoundError(
                    f"flow cache {self._cache.directory} lacks {len(missing)} of {len(pairs.keys)} pairs of the "
                    f"dataset, the first is {pairs.keys[missing[0]]}{about}: compute it for this dataset "
                    "(python tools/flow.py with the same dataset=... and flow=...)"
                )
        for place, key in enumerate(pairs.keys):
            if key in faulty:
                continue
            try:
                pair = pairs[place]
            except ValueError:  # a faulty sweep: the loader counts those
                continue
            self(SweepPairBatch.collate([pair]))
            return

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the stored flow; a pair that is missing or was stored for other data is an error."""
        if self._cache is not None:
            return self._cache.read(batch)
        assert self._files is not None
        return read_files(self._files, batch)


def _files(directory: Path, column: str) -> FlowFiles | None:
    if next(directory.glob("*.h5"), None) is not None:
        return OpenSceneFlowFiles(directory, column)
    if next(directory.glob("*/*.feather"), None) is not None:
        return Argoverse2Files(directory)
    return None
