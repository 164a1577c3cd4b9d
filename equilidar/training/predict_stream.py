"""Runs a detector over sweeps without labels, one batch in memory at a time; what was done before is not done again."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from equilidar.checkpoint.detector import SavedDetector
from equilidar.checkpoint.identity import content_hash
from equilidar.data.faults import Fault, FaultySweepError, points_flaw
from equilidar.data.sweep_sources import DatasetSweeps, Reading, StoredSweeps, SweepSource, open_sweeps
from equilidar.detection.detector import Detector
from equilidar.nn.device import device_of
from equilidar.report.detection_pictures import detections_picture
from equilidar.report.pictures import save_picture
from equilidar.structures import Detections, GridSpec, PointCloudBatch, Sweep
from equilidar.training.detection_files import JOURNAL, Journal, KittiText, entry_of, write_nuscenes
from equilidar.training.detections import detect, stop_if_not_finite
from equilidar.training.saved_detector import check_points

FORMATS = ("json", "kitti", "nuscenes")
# Into a file or a pipe a bar is a line now and then.
_PACE: dict[str, Any] = {} if sys.stderr.isatty() else {"mininterval": 15.0, "maxinterval": 60.0}


@dataclass(frozen=True)
class Output:
    """Where detections go.

    Attributes:
        folder: for the journal, `kitti/`, `nuscenes.json` and `pictures/`.
        format: what is written besides the journal: json (nothing), kitti or nuscenes.
        calibration: see `KittiText`; needed for kitti.
        pictures: sweeps to draw, spread over all; -1 draws each.
        radius: metres from the sensor to a picture's border.
        min_score: detections below are left out of pictures.
        overwrite: begin anew where the folder holds detections.

    Raises:
        ValueError: the format is unknown, or kitti without calibration.
    """

    folder: Path
    format: str = "json"
    calibration: str | None = None
    pictures: int = 20
    radius: float = 40.0
    min_score: float = 0.3
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        if self.format == "kitti" and self.calibration is None:
            raise ValueError(
                "format=kitti has boxes in a camera's frame: give calibration=FILE or FOLDER (KITTI's calib/NAME.txt), "
                "or calibration=lidar for a camera at the LiDAR's origin that looks along x (2D boxes are -1 then)"
            )

    def within(self, grid: GridSpec, radius: float | int | None) -> "Output":
        """Return the same with the pictures' radius: the given one, else the reach of a grid."""
        radius = grid.reach if radius is None else radius
        if not (isinstance(radius, int | float) and radius > 0):
            raise ValueError(f"radius must be metres above 0, or null for the reach of the grid, got {radius!r}")
        return replace(self, radius=float(radius))


def open_source(saved: SavedDetector, path: Path, reading: dict[str, Any]) -> SweepSource:
    """Return the sweeps of a path, read as the detector was trained unless the settings say otherwise.

    Args:
        saved: the detector.
        path: see `open_sweeps`.
        reading: of `Reading`; channels and scales may be None: those of the detector.

    Raises:
        ValueError: points are not what the detector was trained on.
    """
    wanted = saved.contract
    channels, scales = reading["channels"], reading["scales"]
    if channels is None and "time" in wanted.channels:
        raise ValueError(
            "checkpoint: the detector was trained on channel time, the lag of accumulated sweeps, which needs poses: "
            "use dataset=folder or dataset=own_log with dataset.accumulate as in training instead of input, or name "
            "reading.channels=[...,time] if each point of the files has its own"
        )
    channels = wanted.channels if channels is None else tuple(channels)
    if scales is None and channels == wanted.channels:
        scales = wanted.scales
    scales = tuple(map(float, scales)) if scales is not None else (1.0,) * len(channels)
    columns = None if reading["columns"] is None else tuple(reading["columns"])
    settings: dict[str, Any] = {**reading, "channels": channels, "scales": scales, "columns": columns}
    source = open_sweeps(path, Reading(**settings))
    is_stated = isinstance(source, StoredSweeps)
    # Scales of files bring them to what the detector was trained on; a store's points are scaled already.
    contract = source.contract
    if not is_stated and len(contract.scales) == len(wanted.scales):
        contract = replace(contract, scales=wanted.scales)
    check_points(saved, contract)
    return source


def check_intensity(sweep: Sweep) -> None:
    """Raise ValueError where intensities are plainly in another unit than the scale that they were read by."""
    contract = sweep.contract
    if "intensity" not in contract.channels or not len(sweep.xyz):
        return
    place = contract.channels.index("intensity")
    scale = contract.scales[place]
    largest = float(sweep.features[:, place].max()) * scale
    seems = "0..255" if scale <= 1 and largest > 2 else "0..1" if scale > 2 and 0 < largest <= 1 else None
    if seems is not None:
        listed = [1.0 if scale > 2 else 255.0 if i == place else s for i, s in enumerate(contract.scales)]
        raise ValueError(
            f"input: intensities of {sweep.key} reach {largest:g}, as if of {seems}, and the detector was trained with "
            f"{scale:g} stored as 1: give reading.scales={listed} to bring them there, or "
            f"reading.scales={list(contract.scales)} if they are right"
        )


@torch.no_grad()
def predict_stream(
    saved: SavedDetector,
    detector: Detector,
    source: SweepSource,
    output: Output,
    *,
    about: dict[str, Any],
    batch_size: int = 1,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    look_at_intensity: bool = False,
    progress: bool = True,
) -> str:
    """Write the detections of every sweep that has none yet; return a summary.

    Sweeps that cannot be read are printed by name and left out; a later run tries them again.

    Args:
        saved: the file that the detector is from.
        detector: the network.
        source: of the sweeps.
        output: where detections go.
        about: what identifies input and reading; a run of the same goes on where this one was stopped.
        batch_size: sweeps at once.
        num_workers: processes that read ahead, each `batch_size` sweeps at a time.
        device: where to compute; "auto" takes the GPU where there is one.
        look_at_intensity: see `check_intensity`; on the first sweep.
        progress: show a bar.

    Raises:
        ValueError: the folder holds other detections, or the format asks for what the sweeps do not have.
        NonFiniteError: the detector's outputs are not finite; what was found before stays.
    """
    if batch_size < 1 or num_workers < 0:
        raise ValueError(f"batch_size must be at least 1 and num_workers 0, got {batch_size} and {num_workers}")
    device = device_of(device)
    weights, classes = content_hash(saved.tensors)[:16], list(saved.class_names)
    settings = {**about, "checkpoint": weights, "classes": classes, "format": output.format}
    journal = Journal(output.folder / JOURNAL, settings, overwrite=output.overwrite)
    writer = _Writer(saved, output, journal, source)
    todo = [index for index, key in enumerate(source.keys) if key not in journal.done]
    if len(todo) < len(source.keys):
        print(f"going on: {len(source.keys) - len(todo)} of {len(source.keys)} sweeps are done")
    loader = DataLoader(Subset(_Read(source), todo), batch_size, num_workers=num_workers, collate_fn=list)
    detector, faults, num_boxes = detector.to(device).eval(), 0, 0
    with tqdm(
        total=len(source.keys), initial=len(source.keys) - len(todo), unit="sweep", disable=not progress, **_PACE
    ) as bar:
        for items in loader:
            sweeps = [item for item in items if isinstance(item, Sweep)]
            for fault in (item for item in items if isinstance(item, Fault)):
                faults += 1
                bar.write(f"not read, so nothing was found there: {fault.key}: {fault.reason}")
            if sweeps:
                if look_at_intensity:
                    check_intensity(sweeps[0])
                    look_at_intensity = False
                points = PointCloudBatch.collate([sweep.points() for sweep in sweeps]).to(device)
                found = detect(detector, points, [sweep.key for sweep in sweeps])
                stop_if_not_finite(found, detector)
                for sweep in sweeps:
                    num_boxes += len(found[sweep.key].boxes)
                    writer.write(sweep, found[sweep.key])
            bar.update(len(items))
    journal.close()
    writer.finish()
    skipped = f", {faults} not read" if faults else ""
    return f"{len(journal.done)} of {len(source.keys)} sweeps{skipped}; {num_boxes} boxes found now"


class _Read(Dataset[Sweep | Fault]):
    """Reads sweeps in loader workers; a faulty one is told, not raised."""

    def __init__(self, source: SweepSource) -> None:
        self._source = source

    def __getitem__(self, index: int) -> Sweep | Fault:
        try:
            sweep = self._source[index]
        except FaultySweepError as error:
            return Fault(self._source.keys[index], str(error))
        flaw = points_flaw(sweep)
        return sweep if flaw is None else Fault(sweep.key, flaw)


class _Writer:
    """Writes one sweep's files, the journal's line last: what it names is there."""

    def __init__(self, saved: SavedDetector, output: Output, journal: Journal, source: SweepSource) -> None:
        self._saved, self._output, self._journal = saved, output, journal
        self._tokens: dict[str, str] = {}
        if isinstance(source, DatasetSweeps) and source.tokens is not None:
            self._tokens = dict(zip(source.keys, source.tokens, strict=True))
        self._drawn = _spread(source.keys, output.pictures)
        self._kitti = None
        if output.format == "kitti":
            self._kitti = KittiText(output.folder / "kitti", output.calibration or "", saved.class_names)

    def write(self, sweep: Sweep, found: Detections) -> None:
        entry: dict[str, Any] = {"timestamp": sweep.timestamp, **entry_of(found, self._saved.class_names)}
        if sweep.world_T_sensor is not None:
            entry["world_T_sensor"] = sweep.world_T_sensor.tolist()
        elif self._output.format == "nuscenes":
            raise ValueError(
                f"format=nuscenes has boxes in the global frame, and {sweep.key} has no pose: use "
                "dataset=nuscenes_labelled or another dataset with poses instead of input, or format=json"
            )
        if self._kitti is not None:
            self._kitti.write(sweep.key, found)
        if sweep.key in self._drawn:
            style = {"radius": self._output.radius, "min_score": self._output.min_score, "title": sweep.key}
            path = self._output.folder / "pictures" / f"{sweep.key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_picture(detections_picture(sweep.xyz, None, found, **style), path)
        self._journal.add(sweep.key, entry)

    def finish(self) -> None:
        if self._output.format == "nuscenes":
            write_nuscenes(self._output.folder / "nuscenes.json", self._journal, self._tokens)


def _spread(keys: Sequence[str], number: int) -> set[str]:
    """Return so many keys at even distances; all for -1."""
    if number < 0 or number >= len(keys):
        return set(keys)
    return {keys[(2 * i + 1) * len(keys) // (2 * number)] for i in range(number)}
