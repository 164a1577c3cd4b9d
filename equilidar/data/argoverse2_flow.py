"""Argoverse 2 pairs with the scene flow of flow files. That flow is made of annotated boxes: it is from labels."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equilidar.data.argoverse2 import Argoverse2, log_frames
from equilidar.data.faults import FaultySweepError
from equilidar.data.feather import read_feather
from equilidar.data.listing import content_hash, files_hash
from equilidar.structures import SweepPair

_FLOW = ("flow_tx_m", "flow_ty_m", "flow_tz_m")


class Argoverse2Flow(Argoverse2):
    """The pairs of `Argoverse2` whose source sweep has a flow file; only a flow source that is from labels uses it.

    A flow file has a row for each point of the source sweep: `flow_tx_m`, `flow_ty_m`, `flow_tz_m`, the displacement to
    the next sweep's ego frame, ego motion included, and optionally `is_valid`. It is `<flow_root>/<log>/<time>.feather`
    or, in the log's folder, `flow/<time>.feather` or `flow_labels.feather` for the log's first sweep.

    Attributes:
        flow_files: by pair.

    Raises:
        FileNotFoundError: see `Argoverse2`; or no pair has a flow file.
        ValueError: see `Argoverse2`.
    """

    def __init__(
        self,
        root: str | Path,
        splits: list[str] | tuple[str, ...] = ("train",),
        logs: list[str] | tuple[str, ...] | None = None,
        flow_root: str | Path | None = None,
        channels: list[str] | tuple[str, ...] = ("intensity",),
        scales: list[float] | tuple[float, ...] = (255.0,),
    ) -> None:
        """List the pairs of neighbouring sweeps.

        Args:
            root: see `Argoverse2`.
            splits: see `Argoverse2`.
            logs: see `Argoverse2`.
            flow_root: folder of `<log>/<time>.feather`; None looks into the logs' own folders.
            channels: see `Argoverse2Sweeps`.
            scales: see `PointFormat`.
        """
        super().__init__(root, splits, logs, 1, channels, scales)
        self.from_labels = True
        self._first_times = {log.name: log_frames(log)[0].number for log in self.logs}
        found = [(pair, self._flow_file(*pair, flow_root)) for pair in self._pairs]
        kept = [(pair, path) for pair, path in found if path is not None]
        if not kept:
            raise FileNotFoundError(
                f"none of {len(found)} pairs under {root} has a flow file; set dataset.flow_root to a folder of "
                "<log>/<time>.feather"
            )
        self._pairs = [pair for pair, _ in kept]
        self.flow_files = [path for _, path in kept]
        self.keys = [f"{self._frame(run, i).key}->{self._frame(run, i + 1).key}" for run, i in self._pairs]

    def __getitem__(self, index: int) -> SweepPair:
        """Return pair `index` with its flow; raises FaultySweepError where sweeps or flow file cannot be used."""
        pair = super().__getitem__(index)
        pair.flow, pair.flow_valid = read_flow(self.flow_files[index], len(pair.source.xyz))
        return pair

    def provenance(self) -> dict[str, Any]:
        """Return what identifies the data, flow files included."""
        base = super().provenance()
        return {**base, "hash": content_hash([base["hash"], files_hash(self.keys, self.flow_files)])}

    def _flow_file(self, run: int, index: int, flow_root: str | Path | None) -> Path | None:
        frame = self._frame(run, index)
        log = frame.path.parents[2]
        if flow_root is not None:
            candidates = [Path(flow_root) / log.name / f"{frame.path.stem}.feather"]
        else:
            candidates = [log / "flow" / f"{frame.path.stem}.feather"]
            if frame.number == self._first_times[log.name]:
                candidates.append(log / "flow_labels.feather")
        return next((path for path in candidates if path.is_file()), None)


def read_flow(path: Path, num_points: int) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, " N"]]:
    """Return flow (metres) and its validity.

    Raises:
        FaultySweepError: the file cannot be read, or has not a row for each of `num_points`.
    """
    columns = read_feather(path, _FLOW, optional=("is_valid",))
    flow = torch.from_numpy(np.stack([columns[name] for name in _FLOW], 1).astype(np.float32))
    if len(flow) != num_points:
        raise FaultySweepError(f"{path}: {len(flow)} rows of flow for a sweep of {num_points} points")
    valid = flow.isfinite().all(1)
    if "is_valid" in columns:
        valid &= torch.from_numpy(columns["is_valid"].astype(bool))
    return flow, valid
