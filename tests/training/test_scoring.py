"""Scorers: a perfect detector is perfect, nothing outside the grid is asked for, official files come out."""

import pickle
from pathlib import Path

import pytest
import torch

from equilidar.data.kitti_object import KittiObject
from equilidar.data.simulator import SimulatedSweeps
from equilidar.data.subsets import LabelledSubset
from equilidar.evaluation.kitti_files import read_results
from equilidar.structures import Boxes3D, Detections, GridSpec, LabelledSweep
from equilidar.training.scoring import KittiScorer, SimulatedScorer, scorer_for
from tests.data.fake_kitti import write_object_data

GRID = GridSpec.from_range([0.0, -25.6, -3.0, 51.2, 25.6, 1.0], [0.16, 0.16, 1 / 6])


@pytest.fixture(scope="module")
def streets() -> SimulatedSweeps:
    sensor = {"azimuth_steps": 360, "beam_stride": 4}
    return SimulatedSweeps(sensor, num_sequences=2, frames_per_sequence=2, frame_step=20, seed=3)


def as_found(boxes: Boxes3D) -> Detections:
    return Detections(boxes, torch.linspace(0.9, 0.5, max(len(boxes), 1))[: len(boxes)])


def perfect(dataset: SimulatedSweeps) -> dict[str, Detections]:
    return {key: as_found(dataset.annotations(i).boxes) for i, key in enumerate(dataset.keys)}


def test_perfect_detections_find_all_that_lies_in_the_grid(streets: SimulatedSweeps) -> None:
    scorer = scorer_for(streets, ["Car", "Pedestrian"], GRID)
    assert isinstance(scorer, SimulatedScorer)
    score = scorer(perfect(streets))
    car = score.figures["car"]
    inside = sum(
        int((GRID.contains(a.boxes.center) & (a.boxes.label == 0) & (a.difficulty <= 1)).sum())
        for a in map(streets.annotations, range(len(streets)))
    )
    assert car["num_ground_truth"][1] == inside > 0
    assert car["3d@0.7"]["recall"][1] == 100
    assert score.headline > 0


def test_missing_detections_lower_the_headline(streets: SimulatedSweeps) -> None:
    scorer = scorer_for(streets, ["Car"], GRID)
    whole = scorer(perfect(streets)).headline
    half = dict(list(perfect(streets).items())[:2])
    assert scorer(half).headline < whole
    assert scorer({}).headline == 0


def test_a_subset_is_scored_on_its_own_sweeps(streets: SimulatedSweeps) -> None:
    subset = LabelledSubset(streets, 0.5, 0)
    figures = scorer_for(subset, ["Car"], GRID)(perfect(streets)).figures
    whole = scorer_for(streets, ["Car"], GRID)(perfect(streets)).figures
    assert figures["car"]["num_ground_truth"][2] < whole["car"]["num_ground_truth"][2]


def test_simulated_detections_are_written_as_text(streets: SimulatedSweeps, tmp_path: Path) -> None:
    scorer_for(streets, ["Car"], GRID).write(tmp_path, perfect(streets))
    path = tmp_path / f"{streets.keys[0]}.txt"
    rows = [line.split() for line in path.read_text().splitlines()]
    assert len(rows) == len(streets.annotations(0).boxes)
    assert all(row[0] in streets.class_names and len(row) == 9 for row in rows)


def test_a_dataset_without_evaluation_is_refused(streets: SimulatedSweeps) -> None:
    class Bare:
        name, keys, class_names, contract = "bare", ["a"], ("Car",), streets.contract

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> LabelledSweep:
            return streets[index]

    with pytest.raises(ValueError, match="bare has no official evaluation"):
        scorer_for(Bare(), ["Car"], GRID)


def test_kitti_scorer_goes_to_other_processes(tmp_path: Path) -> None:
    dataset = KittiObject(write_object_data(tmp_path), "all")
    scorer = scorer_for(dataset, dataset.class_names, GRID)
    detections = {key: as_found(dataset[i].boxes) for i, key in enumerate(dataset.keys)}
    fresh = pickle.loads(pickle.dumps(scorer))
    score = scorer(detections)
    used = pickle.loads(pickle.dumps(scorer))
    assert isinstance(scorer, KittiScorer) and fresh(detections) == score == used(detections)
    assert score.figures["car"]["num_ground_truth"] == [3, 3, 3]


def test_kitti_labels_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = KittiObject(write_object_data(tmp_path), "all")
    scorer = scorer_for(dataset, dataset.class_names, GRID)
    assert scorer({}).headline == 0
    for name in ("objects", "calibration"):
        monkeypatch.setattr(dataset, name, lambda index: pytest.fail("read again"))
    assert scorer({}).headline == 0


def test_sample_kitti_labels_as_detections_are_perfect(samples: Path, tmp_path: Path) -> None:
    root = samples / "kitti_object"
    if not (root / "training" / "label_2").is_dir():
        pytest.skip(f"no KITTI object frames under {root}")
    dataset = KittiObject(root, "all")
    scorer = scorer_for(dataset, dataset.class_names, GRID)
    assert isinstance(scorer, KittiScorer)
    detections = {key: as_found(dataset[i].boxes) for i, key in enumerate(dataset.keys)}
    car = scorer(detections).figures["car"]
    # Not 100: with fewer than 41 objects the official curve ends early. The recall is whole.
    assert car["3d"]["recall"][1] == 100
    scorer.write(tmp_path, detections)
    results = read_results(tmp_path, [key.rsplit("/", 1)[-1] for key in dataset.keys])
    assert len(results) == sum(len(found.scores) for found in detections.values())
