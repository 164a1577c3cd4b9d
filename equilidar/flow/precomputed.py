"""Flow from a cache."""

import os
from collections.abc import Mapping
from typing import Any

from equilidar.flow.cache import FlowCache, KeyedPairs
from equilidar.structures import FlowField, SweepPairBatch


class PrecomputedFlow:
    """Reads what an estimator stored; as label-free as that estimator was.

    Attributes:
        allow_labels: the user's leave, where the stored flow is from labels.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        estimator: str | None = None,
        settings: Mapping[str, Any] | None = None,
        allow_labels: bool = False,
    ) -> None:
        """Open the cache.

        Args:
            directory: the cache's folder.
            estimator: name of the estimator that must have made it; None takes any.
            settings: settings that it must have had, those named here; None takes any.
            allow_labels: the user's leave.

        Raises:
            FileNotFoundError: there is no cache.
            ValueError: it was made by another estimator or with other settings.
        """
        self._cache = FlowCache.open(directory)
        self.allow_labels = allow_labels
        stamp = self._cache.stamp
        if estimator not in (None, stamp.estimator):
            raise ValueError(f"flow.estimator={estimator}, but the cache {directory} was made by {stamp.estimator}")
        for name, value in (settings or {}).items():
            if name not in stamp.settings or stamp.settings[name] != value:
                raise ValueError(
                    f"flow.settings.{name}={value}, but the cache {directory} was made with {dict(stamp.settings)}"
                )

    @property
    def name(self) -> str:
        return f"precomputed_{self._cache.stamp.estimator}"

    @property
    def from_labels(self) -> bool:
        return self._cache.stamp.from_labels

    @property
    def settings(self) -> Mapping[str, Any]:
        return self._cache.stamp.settings

    def check(self, pairs: KeyedPairs) -> None:
        """Refuse pairs that the cache was not made for, before a run begins.

        Every pair must be there, but for those that could not be read when it was made; the sweeps of the first one are
        compared. (Each pair is compared again when it is read.)

        Raises:
            FileNotFoundError: pairs are missing.
            ValueError: the first pair's sweeps are others.
        """
        cache = self._cache
        missing = cache.missing(pairs.keys)
        faulty = cache.faults() if missing else {}
        missing = [place for place in missing if pairs.keys[place] not in faulty]
        if missing:
            about = (
                f"{cache.stamp.data.get('num_pairs')} pairs of {cache.stamp.data['name']}" if cache.stamp.data else ""
            )
            raise FileNotFoundError(
                f"flow cache {cache.directory} lacks {len(missing)} of {len(pairs.keys)} pairs of the dataset, the "
                f"first is {pairs.keys[missing[0]]}{about}: compute it for this "
                "dataset (python tools/flow.py with the same dataset=... and flow=...)"
            )
        first = next((place for place, key in enumerate(pairs.keys) if key not in faulty), None)
        if first is not None:
            self(SweepPairBatch.collate([pairs[first]]))

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the stored flow; a pair that is missing or was stored for other data is an error."""
        return self._cache.read(batch)
