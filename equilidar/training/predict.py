"""Runs a saved detector over a labelled dataset."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from equilidar.checkpoint.detector import SavedDetector
from equilidar.data.faults import Fault
from equilidar.data.loading import LoadedBatch, make_loader
from equilidar.data.protocols import LabelledDataset
from equilidar.detection.detector import Detector
from equilidar.nn.device import device_of
from equilidar.structures import Detections, GridSpec, LabelledBatch
from equilidar.training.detections import detect, stop_if_not_finite
from equilidar.training.saved_detector import check_input
from equilidar.training.scoring import scorer_for


def score(
    saved: SavedDetector,
    detector: Detector,
    dataset: LabelledDataset,
    grid: GridSpec,
    *,
    write_to: str | Path | None,
    **sizes: Any,
) -> dict[str, Any]:
    """Return the official figures of a detector over a dataset; sweeps that cannot be read are printed.

    Args:
        saved: the file that the detector is from.
        detector: the network.
        dataset: what it runs over.
        grid: the detector's grid.
        write_to: folder for the detections, in the dataset's own format; None writes none.
        sizes: batch_size, num_workers and device of `predict`.

    Raises:
        ValueError: the dataset does not give what the detector was trained on.
    """
    check_input(saved, dataset)
    scorer = scorer_for(dataset, detector.classes, grid)
    found, faults = predict(detector, dataset, **sizes)
    for fault in faults:
        print(f"not read, so nothing was found there: {fault.key}: {fault.reason}")
    if write_to is not None:
        scorer.write(Path(write_to), found)
    return scorer(found).figures


@torch.no_grad()
def predict(
    detector: Detector,
    dataset: LabelledDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> tuple[dict[str, Detections], list[Fault]]:
    """Return the detections of every sweep by its key, and the sweeps that could not be read.

    Args:
        detector: the network.
        dataset: what it runs over.
        batch_size: sweeps at once.
        num_workers: processes that read.
        device: where to compute; "auto" takes the GPU where there is one.
        progress: show a bar.

    Raises:
        NonFiniteError: the detector's outputs are not finite.
    """
    device = device_of(device)
    loader = make_loader(
        dataset, "labelled", batch_size, seed=0, num_workers=num_workers, shuffle=False, drop_last=False
    )
    detector = detector.to(device)
    found: dict[str, Detections] = {}
    faults: list[Fault] = []
    batches: Iterable[LoadedBatch[LabelledBatch]] = tqdm(loader, unit="batch", disable=not progress)
    for loaded in batches:
        faults += loaded.faults
        if loaded.batch is not None:
            here = detect(detector, loaded.batch.points.to(device), loaded.batch.keys)
            stop_if_not_finite(here, detector)
            found |= here
    return found, faults
