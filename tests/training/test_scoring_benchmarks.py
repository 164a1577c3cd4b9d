"""nuScenes, Waymo and Argoverse 2: labels as detections are perfect, fewer are worse, the official files come out."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from equilidar.data.argoverse2_labelled import Argoverse2Labelled
from equilidar.data.nuscenes_labelled import NuScenesLabelled
from equilidar.data.protocols import LabelledDataset
from equilidar.data.subsets import LabelledSubset
from equilidar.data.waymo_labelled import WaymoLabelled
from equilidar.evaluation.argoverse2_evaluator import Argoverse2Evaluator
from equilidar.evaluation.figures import format_table
from equilidar.evaluation.nuscenes_evaluator import NuscenesEvaluator
from equilidar.evaluation.waymo_files import read_waymo
from equilidar.structures import Detections, GridSpec
from equilidar.training.score import Score, Scorer
from equilidar.training.scoring import scorer_for
from equilidar.training.scoring_argoverse2 import Argoverse2Scorer
from equilidar.training.scoring_nuscenes import NuScenesScorer
from equilidar.training.scoring_waymo import WaymoScorer
from tests.data.fake_argoverse2 import write_simulated_log
from tests.data.fake_nuscenes import VERSION, write_release

GRID = GridSpec.from_range([-51.2, -51.2, -5.0, 51.2, 51.2, 3.0], [0.1, 0.1, 0.2])


@pytest.fixture(scope="module")
def nuscenes(tmp_path_factory: pytest.TempPathFactory) -> NuScenesLabelled:
    release = write_release(tmp_path_factory.mktemp("nuscenes"))
    return NuScenesLabelled(release.root, VERSION, "all", accumulate=1)


@pytest.fixture(scope="module")
def waymo(tmp_path_factory: pytest.TempPathFactory) -> WaymoLabelled:
    from tests.data.fake_waymo import write_segments

    root = tmp_path_factory.mktemp("waymo")
    write_segments(root)
    return WaymoLabelled(root, lidars=["TOP"], returns=[1])


@pytest.fixture(scope="module")
def argoverse2(tmp_path_factory: pytest.TempPathFactory) -> Argoverse2Labelled:
    root = tmp_path_factory.mktemp("argoverse2")
    write_simulated_log(root / "train")
    return Argoverse2Labelled(root)


def labels_of(dataset: LabelledDataset, sure: float = 0.9) -> dict[str, Detections]:
    """Return the labels as detections; scores differ, so that their order is defined."""
    found = {}
    for index, key in enumerate(dataset.keys):
        boxes = dataset[index].boxes
        found[key] = Detections(boxes, torch.linspace(sure, 0.5, max(len(boxes), 1))[: len(boxes)])
    return found


def shifted(found: dict[str, Detections], along: float) -> dict[str, Detections]:
    step = torch.tensor([along, 0.0, 0.0])
    return {
        key: Detections(dataclasses.replace(item.boxes, center=item.boxes.center + step), item.scores)
        for key, item in found.items()
    }


def check(scorer: Scorer, dataset: LabelledDataset, name: str) -> Score:
    """Perfect, shifted, half of the sweeps, none: the headline falls; what is logged is finite."""
    found = labels_of(dataset)
    score = scorer(found)
    assert score.name == name
    half = dict(list(found.items())[: len(found) // 2])
    assert score.headline > scorer(shifted(found, 0.7)).headline
    assert score.headline > scorer(half).headline >= scorer({}).headline >= 0
    assert all(math.isfinite(value) for value in score.logged().values())
    assert json.loads(json.dumps(score.figures, allow_nan=False)) == score.figures
    assert name.split()[-1].split("_")[0] in format_table(score.figures) and "mean" in format_table(score.figures)
    return score


def test_nuscenes_labels_are_perfect_and_the_submission_is_evaluated_alike(
    nuscenes: NuScenesLabelled, tmp_path: Path
) -> None:
    scorer = scorer_for(nuscenes, nuscenes.class_names, GRID)
    assert isinstance(scorer, NuScenesScorer) and not scorer.has_cliff
    score = check(scorer, nuscenes, "NDS")
    assert score.figures["car"]["AP"] == pytest.approx(1.0) and score.figures["car"]["trans_err"] < 1e-3
    assert score.figures["car"]["orient_err"] < 1e-3 and score.figures["car"]["vel_err"] < 1e-3
    scorer.write(tmp_path, labels_of(nuscenes))
    official = NuscenesEvaluator(nuscenes.tables, tmp_path / "results_nusc.json").evaluate()
    assert official["nd_score"] == pytest.approx(score.headline / 100, abs=1e-9)
    assert official["mean_ap"] == pytest.approx(score.figures["mean"]["mAP"], abs=1e-9)


def test_nuscenes_without_velocities_stands_still_and_takes_at_most_500(nuscenes: NuScenesLabelled) -> None:
    scorer = scorer_for(nuscenes, nuscenes.class_names, GRID)
    found = labels_of(nuscenes)
    unknown = {
        key: Detections(
            dataclasses.replace(item.boxes, velocity=torch.full_like(item.boxes.velocity, torch.nan)), item.scores
        )
        for key, item in found.items()
    }
    assert scorer(found).headline > scorer(unknown).headline > 0
    key, item = next(iter(found.items()))
    many = torch.arange(len(item.scores)).repeat(600 // len(item.scores) + 1)
    crowd = Detections(item.boxes.rows(many, torch.tensor([0, len(many)])), item.scores[many])
    assert isinstance(scorer, NuScenesScorer)
    assert int((scorer._boxes({key: crowd}).sample == 0).sum()) == 500


def test_waymo_labels_are_perfect_and_the_file_holds_them(waymo: WaymoLabelled, tmp_path: Path) -> None:
    scorer = scorer_for(waymo, ["Vehicle", "Pedestrian"], GRID)
    assert isinstance(scorer, WaymoScorer)
    score = check(scorer, waymo, "mAPH L2")
    assert score.figures["vehicle"]["APH_L2"] == pytest.approx(1.0, abs=1e-3)
    assert score.figures["mean"]["mAPH_L2"] == pytest.approx(score.headline / 100)
    found = labels_of(waymo)
    scorer.write(tmp_path, found)
    read = read_waymo(tmp_path / "detections.bin", is_detection=True)
    assert len(read) == sum(len(item.scores) for item in found.values())
    assert set(read.frames) == {key.split("/", 1)[1] for key in waymo.keys}


def test_a_wrong_heading_costs_aph_alone(waymo: WaymoLabelled) -> None:
    found = {
        key: Detections(dataclasses.replace(item.boxes, yaw=item.boxes.yaw + math.pi), item.scores)
        for key, item in labels_of(waymo).items()
    }
    figures = scorer_for(waymo, ["Vehicle"], GRID)(found).figures["vehicle"]
    assert figures["AP_L2"] == pytest.approx(1.0, abs=1e-3) and figures["APH_L2"] < 0.01


def test_argoverse2_labels_are_perfect_and_the_file_is_evaluated_alike(
    argoverse2: Argoverse2Labelled, tmp_path: Path
) -> None:
    scorer = scorer_for(argoverse2, argoverse2.class_names, GRID)
    assert isinstance(scorer, Argoverse2Scorer)
    score = check(scorer, argoverse2, "CDS")
    assert score.figures["REGULAR_VEHICLE"]["AP"] == pytest.approx(1.0)
    assert score.figures["REGULAR_VEHICLE"]["ATE"] < 1e-3
    scorer.write(tmp_path, labels_of(argoverse2))
    log = argoverse2.frames[0][0]
    evaluator = Argoverse2Evaluator(log, tmp_path / "detections.feather", roi=False)
    official = evaluator.evaluate()["metrics"]["AVERAGE_METRICS"]
    assert 100 * official[-1] == pytest.approx(score.headline)


def test_a_subset_is_scored_on_its_own_sweeps(nuscenes: Any, waymo: Any, argoverse2: Any) -> None:
    for dataset, first in ((nuscenes, "car"), (waymo, "vehicle"), (argoverse2, "REGULAR_VEHICLE")):
        subset = LabelledSubset(dataset, 0.5, 0)
        names = dataset.class_names
        found = {key: item for key, item in labels_of(dataset).items() if key in subset.keys}
        of_subset = scorer_for(subset, names, GRID)(found).figures[first]
        of_all = scorer_for(dataset, names, GRID)(found).figures[first]
        metric = next(name for name in of_all if name.startswith("AP"))
        assert of_subset[metric] > of_all[metric]
