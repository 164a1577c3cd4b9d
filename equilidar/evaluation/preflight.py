"""What every preflight says and refuses: the parts that do not depend on the data set."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64

from equilidar.evaluation.conventions import PlacedBoxes, find_conventions

_LOG = logging.getLogger(__name__)


@runtime_checkable
class FileEvaluator(Protocol):
    """Evaluates files of detections against files of ground truth, as `tools/evaluate.py` does."""

    def evaluate(self) -> dict[str, Any]:
        """Return the figures; they can be written as JSON."""
        ...

    def check(self) -> list[str]:
        """Read and compare the files without evaluating; return what was found, raise ValueError where it is wrong."""
        ...

    def table(self, figures: dict[str, Any]) -> str:
        """Return the figures as text for a terminal."""
        ...


def required(detections: str | Path | None) -> Path:
    """Return the path of the detections.

    Raises:
        ValueError: none is given.
    """
    if detections is None:
        raise ValueError(
            "evaluator.detections must be given: add evaluator.detections=... (check=true alone works without)"
        )
    return Path(detections)


def check_frames(
    path: str | Path,
    ground_truth: Collection[Any],
    detections: Collection[Any],
    *,
    what: str = "frames",
    hint: str = "",
    refuse: bool = True,
) -> None:
    """Refuse detections of other frames than the ground truth's, or only log a warning.

    Args:
        path: file of the detections.
        ground_truth: names of its frames.
        detections: names of theirs.
        what: what a frame is called, in the plural.
        hint: what to do about it.
        refuse: False where the format does not tell empty frames from missing ones: they are evaluated, but a detector
            that stopped halfway does not pass without a word.

    Raises:
        ValueError: frames are missing or extra; the message tells how many, names three and ends with `hint`.
    """
    truth, found = set(ground_truth), set(detections)
    differences: list[str] = []
    if missing := sorted(truth - found):
        differences.append(f"{path} lacks {some(missing, what)} of the {len(truth)} in the ground truth{hint}")
    if extra := sorted(found - truth):
        differences.append(f"{path} holds {some(extra, what)} that the ground truth lacks{hint}")
    for difference in differences:
        if refuse:
            raise ValueError(difference)
        _LOG.warning("%s", difference)


def some(names: Sequence[Any], what: str) -> str:
    """Return how many and the first three: 5 frames (a, b, c, ...)."""
    shown = ", ".join(_text(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what if len(names) > 1 else what.removesuffix('s')} ({shown})"


def _text(name: Any) -> str:
    return "/".join(map(str, name)) if isinstance(name, tuple) else str(name)


def describe(
    side: str,
    path: str | Path,
    num_frames: int,
    label: Int64[np.ndarray, " N"],
    names: Sequence[str],
    score: np.ndarray | None = None,
    *,
    what: str = "frames",
) -> str:
    """Return one line about a file: frames, boxes, boxes by class, range of scores."""
    counts = np.bincount(label, minlength=len(names))
    classes = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True) if count)
    scores = "" if score is None or not len(score) else f"; scores {score.min():.3g} to {score.max():.3g}"
    return f"{side:<13}{path}: {num_frames} {what}, {len(label)} boxes ({classes or 'none'}){scores}"


def compare_conventions(
    frame: tuple[Int64[np.ndarray, " G"], Int64[np.ndarray, " D"]],
    label: tuple[Int64[np.ndarray, " G"], Int64[np.ndarray, " D"]],
    box: tuple[Float64[np.ndarray, "G 7"], Float64[np.ndarray, "D 7"]],
) -> str:
    """Compare ground truth (first) and detections (second) and return one line about it.

    Args:
        frame: index of each box's frame, common to both sides.
        label: class of each box.
        box: center x, y, z relative to the vehicle, length, width, height, yaw counter-clockwise from +x.

    Raises:
        ValueError: the detections seem to be in another convention; the message names it.
    """
    num_labels = 1 + max(part.max(initial=0) for part in label)
    truth, found = (PlacedBoxes(f * num_labels + c, b) for f, c, b in zip(frame, label, box, strict=True))
    findings, num_pairs = find_conventions(truth, found)
    if findings:
        raise ValueError(
            f"detections are in another convention than the ground truth: {'; '.join(findings)} "
            f"({num_pairs} of {len(truth.box)} objects compared)"
        )
    lead = f"conventions  {num_pairs} of {len(truth.box)} objects have a detection within 1 m"
    if num_pairs < 4:
        return f"{lead}: too few to compare conventions"
    return f"{lead}; heights, yaws, sizes and sides agree"
