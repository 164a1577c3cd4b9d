"""Flow that others computed or annotated: Argoverse 2's flow files and OpenSceneFlow's h5 files."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equilidar.structures import FlowField, SweepPairBatch

_AXES = ("flow_tx_m", "flow_ty_m", "flow_tz_m")
_LONGEST_STEP = 0.15  # seconds between neighbouring sweeps of Argoverse 2 (10 Hz)
_SAME_POINT = 0.02  # metres; Argoverse 2 stores half-precision coordinates


@runtime_checkable
class FlowFiles(Protocol):
    """A folder of flow of whole sweeps, found by sequence and frame of a pair's key."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def load(
        self, sequence: str, source: str, target: str, xyz: Float[Tensor, "N 3"]
    ) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, " N"]]:
        """Return flow (metres, ego motion included) and validity of a sweep's points.

        Raises:
            FileNotFoundError: there is none for this sweep.
            ValueError: it is damaged, or belongs to other points.
        """
        ...


def read_files(files: FlowFiles, batch: SweepPairBatch) -> FlowField:
    """Return the flow of a batch's pairs, on its device; confidence is 1 wherever it is valid."""
    bounds = batch.source.offsets.tolist()
    xyz, gaps = batch.source.xyz.cpu(), batch.gap.tolist()
    flows, valids = [], []
    for place, (sequence, source, target) in enumerate(_names(batch)):
        if not 0 < gaps[place] <= _LONGEST_STEP:
            raise ValueError(
                f"flow=precomputed: {files.name} holds the flow to the next sweep, but {batch.keys[place]} are "
                f"{gaps[place]:.2f} s apart; set dataset.gap=1"
            )
        flow, valid = files.load(sequence, source, target, xyz[bounds[place] : bounds[place + 1]])
        valid = valid & flow.isfinite().all(1)
        flows.append(torch.where(valid[:, None], flow, 0.0))
        valids.append(valid)
    device = batch.source.xyz.device
    flow, valid = torch.cat(flows).to(device), torch.cat(valids).to(device)
    return FlowField(flow, valid, valid.float())


def _names(batch: SweepPairBatch) -> Iterator[tuple[str, str, str]]:
    for key in batch.keys:
        source, _, target = key.partition("->")
        _, sequence, frame = source.rsplit("/", 2)
        yield sequence, frame, target.rpartition("/")[2]


class Argoverse2Files:
    """`<log>/<time>.feather` with `flow_tx_m`, `flow_ty_m`, `flow_tz_m` and optionally `is_valid`; a row a point.

    Args:
        directory: that holds the logs' folders.
    """

    name = "argoverse2_files"

    def __init__(self, directory: Path) -> None:
        self._directory, self.settings = directory, {}

    def load(
        self, sequence: str, source: str, target: str, xyz: Float[Tensor, "N 3"]
    ) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, " N"]]:
        """See `FlowFiles`."""
        import pyarrow as pa
        from pyarrow import feather

        path = self._directory / sequence / f"{source}.feather"
        if not path.is_file():
            raise FileNotFoundError(f"flow=precomputed: no flow of sweep {source} of {sequence}: {path} is missing")
        try:
            table = feather.read_table(path)
            columns = [table[name].to_numpy() for name in _AXES]
        except (pa.ArrowException, OSError, KeyError) as error:
            raise ValueError(f"flow=precomputed: {path} is no flow file ({' '.join(str(error).split())})") from None
        flow = torch.from_numpy(np.stack(columns, 1).astype(np.float32))
        _check_rows(path, len(flow), len(xyz))
        valid = torch.ones(len(flow), dtype=torch.bool)
        if "is_valid" in table.column_names:
            valid = torch.from_numpy(table["is_valid"].to_numpy().astype(bool))
        return flow, valid


class OpenSceneFlowFiles:
    """`<sequence>.h5` of OpenSceneFlow (KTH-RPL): a group for each time stamp with `lidar`, `pose`, `flow` ...

    `flow` is the annotated one, with `flow_is_valid`; what a network estimated stands beside it under a name of its own
    and is displacement with ego motion as well.

    Args:
        directory: that holds the files.
        column: of the groups.
    """

    name = "opensceneflow"

    def __init__(self, directory: Path, column: str = "flow") -> None:
        self._directory, self._column, self.settings = directory, column, {"column": column}

    def load(
        self, sequence: str, source: str, target: str, xyz: Float[Tensor, "N 3"]
    ) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, " N"]]:
        """See `FlowFiles`; the points of `lidar` are compared, and that `target` comes next."""
        try:
            import h5py
        except ImportError as error:
            raise ImportError("reading h5 files of flow needs h5py: pip install 'equilidar[flow]'") from error
        path = self._directory / f"{sequence}.h5"
        if not path.is_file():
            raise FileNotFoundError(f"flow=precomputed: no flow of sequence {sequence}: {path} is missing")
        try:
            with h5py.File(path, "r") as file:
                groups: Any = file
                times = sorted(groups, key=lambda name: (len(name), name))
                if source not in times:
                    raise FileNotFoundError(f"flow=precomputed: {path} has no sweep {source}; its first is {times[0]}")
                later = times[times.index(source) + 1 :][:1]
                group = {name: np.asarray(value) for name, value in groups[source].items() if name != "pose"}
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"flow=precomputed: {path} is no h5 file ({' '.join(str(error).split())})") from None
        if self._column not in group:
            raise FileNotFoundError(
                f"flow=precomputed: sweep {source} of {path} has no '{self._column}'; it has {', '.join(sorted(group))}"
            )
        if later != [target]:
            raise ValueError(f"flow=precomputed: in {path} sweep {target} does not come next after {source}")
        _check_rows(path, len(group["lidar"]), len(xyz))
        moved = np.abs(group["lidar"][:, :3] - xyz.numpy()).max(initial=0)
        if moved > _SAME_POINT:
            raise ValueError(f"flow=precomputed: points of sweep {source} in {path} are up to {moved:.2f} m elsewhere")
        flow = torch.from_numpy(group[self._column].astype(np.float32))
        valid = torch.ones(len(flow), dtype=torch.bool)
        if self._column == "flow" and "flow_is_valid" in group:
            valid = torch.from_numpy(group["flow_is_valid"].astype(bool))
        return flow, valid


def _check_rows(path: Path, rows: int, points: int) -> None:
    if rows != points:
        raise ValueError(f"flow=precomputed: {path} has {rows} rows for a sweep of {points} points: other data")
