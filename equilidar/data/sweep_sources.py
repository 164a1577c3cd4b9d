"""Sweeps one by one from whatever holds points: files, folders, packed stores, logs, data sets. No pairs, no labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

from numpy.typing import NDArray

from equilidar.data.feather import read_feather
from equilidar.data.listing import natural_key
from equilidar.data.log_index import load_index
from equilidar.data.own_log import LogSweeps, log_frames, log_source, sequence_names
from equilidar.data.packed_file import PackedFiles
from equilidar.data.packed_index import INDEX_FILE, PLAN_FILE, StoreKind, read_index, read_json
from equilidar.data.packed_labelled import ANNOTATIONS, BOXES
from equilidar.data.point_files import ALIASES, SUFFIXES, PointFormat, read_columns
from equilidar.data.pointcloud2 import TimeUnit
from equilidar.data.protocols import HasSweeps, LabelledDataset
from equilidar.data.ros_bags import SUFFIXES as LOG_SUFFIXES
from equilidar.data.ros_bags import find_bags
from equilidar.structures import SensorContract, Sweep

_FEATHER = ".feather"
POINT_SUFFIXES = (*SUFFIXES, _FEATHER)


@runtime_checkable
class SweepSource(Protocol):
    """Sweeps by number; nothing is read before it is asked for.

    Attributes:
        contract: what the numbers mean.
        keys: one for each sweep, unique: names for files, folders in them by slashes.
    """

    contract: SensorContract
    keys: list[str]

    def __getitem__(self, index: int) -> Sweep:
        """Return sweep `index`.

        Raises:
            FaultySweepError: it cannot be used.
        """
        ...


@dataclass(frozen=True)
class Reading:
    """What a source that does not say it itself means.

    Attributes:
        channels: columns that become features.
        scales: per channel, the raw value that is stored as 1.0.
        columns: of files that do not name their own; None: x, y, z and the channels.
        frame: origin of the coordinates; None: the ego vehicle in feather files (Argoverse 2), else the sensor.
        drop_invalid: leave out points that are not finite; otherwise a sweep that holds one is faulty.
        topic: of logs with several.
        time_unit: of point times in logs.
        base_frame: move the points of logs into this frame, which is then the ego vehicle's.
        cache_dir: for indices of logs; None for the user's cache folder.
    """

    channels: tuple[str, ...]
    scales: tuple[float, ...]
    columns: tuple[str, ...] | None = None
    frame: str | None = None
    drop_invalid: bool = False
    topic: str | None = None
    time_unit: str = "auto"
    base_frame: str | None = None
    cache_dir: str | None = None

    def point_format(self, default_frame: str) -> PointFormat:
        """Return how points become features.

        Raises:
            ValueError: the settings do not fit one another.
        """
        frame = self.frame or default_frame
        if frame not in ("sensor", "ego"):
            raise ValueError(f"reading.frame must be sensor or ego, got {frame!r}")
        columns = self.columns or ("x", "y", "z", *self.channels)
        named = cast('Literal["sensor", "ego"]', frame)
        return PointFormat(columns, self.channels, self.scales, named, self.drop_invalid)


class FileSweeps:
    """A sweep for each point file."""

    def __init__(self, root: Path, files: Sequence[Path], point_format: PointFormat) -> None:
        self.contract = point_format.contract
        self._files, self._format = list(files), point_format
        whole = [file.name if file == root else file.relative_to(root).as_posix() for file in files]
        short = [name.removesuffix(file.suffix) for name, file in zip(whole, files, strict=True)]
        count = Counter(short)
        self.keys = [name if count[name] == 1 else long for name, long in zip(short, whole, strict=True)]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sweep:
        """Read file `index`; see `SweepSource`."""
        path = self._files[index]
        xyz, features = self._format.convert(self._columns(path), path)
        return Sweep(xyz, features, self.contract, self.keys[index], float(index))

    def _columns(self, path: Path) -> dict[str, NDArray]:
        if path.suffix != _FEATHER:
            return read_columns(path, self._format.columns)
        names = [name for channel in self._format.channels for name in ALIASES.get(channel, (channel,))]
        return read_feather(path, ("x", "y", "z"), tuple(names))


class LogMessages:
    """A sweep for each PointCloud2 message of one topic in each of several logs."""

    def __init__(self, root: Path, reading: Reading) -> None:
        bags = find_bags(root)
        indices = {bag: load_index(bag, reading.topic, reading.cache_dir) for bag in bags}
        frame = "sensor" if reading.base_frame is None else "ego"
        sources = {str(bag): log_source(bag, index, reading.base_frame) for bag, index in indices.items()}
        unit = cast(TimeUnit, reading.time_unit)
        self._reader = LogSweeps(sources, reading.point_format(frame), unit)
        self.contract = self._reader.contract
        names = sequence_names(root, bags)
        listed = zip(indices.items(), names, strict=True)
        self._frames = [frame for (bag, index), name in listed for frame in log_frames(bag, name, index)]
        self.keys = [frame.key.removeprefix("own_log/") for frame in self._frames]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sweep:
        """Read message `index`; see `SweepSource`."""
        frame = self._frames[index]
        xyz, features = self._reader.read(frame)
        return Sweep(xyz, features, self.contract, self.keys[index], frame.timestamp)


class StoredSweeps:
    """The sweeps of a packed store, of pairs or labelled; boxes are not looked at."""

    def __init__(self, root: Path) -> None:
        content = read_json(root / INDEX_FILE) or {}
        kind: StoreKind = "labelled" if content.get("kind") == "labelled" else "pairs"
        self._index = read_index(root, kind)
        self.contract = self._index.contract
        columns = self._index.sweeps()
        self.keys: list[str] = columns["key"].tolist()
        self._file, self._row = columns["file"], columns["row"]
        self._files = PackedFiles(self._index.paths, (BOXES, ANNOTATIONS) if kind == "labelled" else ())

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sweep:
        """Read row `index`; see `SweepSource`."""
        file = self._files[int(self._file[index])]
        return file.sweep(file.row(int(self._row[index]), self.keys[index]), self.contract)


class DatasetSweeps:
    """The sweeps of a data set, without its labels."""

    def __init__(self, dataset: LabelledDataset | HasSweeps) -> None:
        self._dataset = dataset
        self._is_labelled = isinstance(dataset, LabelledDataset)
        self.keys = list(dataset.keys) if isinstance(dataset, LabelledDataset) else list(dataset.sweep_keys)
        self.contract: SensorContract = dataset.contract  # pyright: ignore[reportAttributeAccessIssue]
        # Names that the benchmark itself gives to sweeps, where results are asked for by them.
        self.tokens: list[str] | None = getattr(dataset, "sample_tokens", None)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Sweep:
        """Read sweep `index`; see `SweepSource`."""
        if isinstance(self._dataset, LabelledDataset):
            return self._dataset[index].sweep
        return replace(self._dataset.sweep(index), key=self.keys[index])


def open_sweeps(path: Path, reading: Reading) -> SweepSource:
    """Return the sweeps of a file, a folder (of files, of logs, or a packed store).

    Raises:
        FileNotFoundError: there is nothing, or no points in it.
        ValueError: the kind of points is not clear, or settings do not fit.
    """
    if not path.exists():
        raise FileNotFoundError(f"input: {path} does not exist; give a file, a folder, a packed store or a log")
    if path.is_dir() and ((path / INDEX_FILE).is_file() or (path / PLAN_FILE).is_file()):
        return StoredSweeps(path)
    if path.is_file():
        if path.suffix in LOG_SUFFIXES:
            return LogMessages(path, reading)
        if path.suffix not in POINT_SUFFIXES:
            known = ", ".join((*POINT_SUFFIXES, *LOG_SUFFIXES))
            raise ValueError(f"input: {path.name} is no file of points; known are {known}")
        return _files(path, [path], reading)
    if (path / "metadata.yaml").is_file():
        return LogMessages(path, reading)
    found = [file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")]
    files = [file for file in found if file.suffix in POINT_SUFFIXES]
    logs = [file for file in found if file.suffix in LOG_SUFFIXES]
    if files and logs:
        raise ValueError(
            f"input: {path} holds files of points ({files[0].name}) and logs ({logs[0].name}); give one of them"
        )
    if logs:
        return LogMessages(path, reading)
    if not files:
        known = ", ".join((*POINT_SUFFIXES, *LOG_SUFFIXES))
        raise FileNotFoundError(f"input: no files of points or logs ({known}) in {path} or below")
    return _files(path, sorted(files, key=lambda file: natural_key(file.relative_to(path).as_posix())), reading)


def _files(root: Path, files: list[Path], reading: Reading) -> FileSweeps:
    kinds = {file.suffix == _FEATHER for file in files}
    if len(kinds) > 1:
        raise ValueError(f"input: {root} holds feather and other files of points; give one kind at a time")
    return FileSweeps(root, files, reading.point_format("ego" if kinds == {True} else "sensor"))
