"""The best validation's detections outlive an interruption, so that their scores can be jittered at the end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytorch_lightning as pl
import torch

from equilidar.data.simulator import SimulatedSweeps
from equilidar.structures import Boxes3D, Detections, GridSpec
from equilidar.training.best import KeepBest
from equilidar.training.finetune import FinetuneModule
from equilidar.training.run_directory import RunDirectory
from equilidar.training.scoring import Score, scorer_for

GRID = GridSpec.from_range([0.0, -25.6, -3.0, 51.2, 25.6, 1.0], [0.16, 0.16, 1 / 6])


def _run(folder: Path) -> RunDirectory:
    return Mock(spec=RunDirectory, path=folder, is_main=True)


def _validated(score: float, detections: dict[str, Detections], scorer: Any) -> FinetuneModule:
    module = FinetuneModule.__new__(FinetuneModule)
    torch.nn.Module.__init__(module)
    module.score, module.detections, module.scorer = Score({}, score), detections, scorer
    return module


def test_detections_of_the_best_validation_are_jittered_after_a_resume(tmp_path: Path) -> None:
    streets = SimulatedSweeps({"azimuth_steps": 360, "beam_stride": 4}, num_sequences=1, frames_per_sequence=2, seed=3)
    scorer = scorer_for(streets, ["Car"], GRID)
    objects = [streets.annotations(index).boxes for index in range(len(streets))]
    boxes = [replace(own, label=torch.zeros_like(own.label)) for own in objects]  # pedestrians are false cars
    found = {
        key: Detections(own, torch.linspace(0.9, 0.5, len(own))) for key, own in zip(streets.keys, boxes, strict=True)
    }
    nothing = dict.fromkeys(streets.keys, Detections(Boxes3D.empty(), torch.zeros(0)))
    run = _run(tmp_path)
    trainer = Mock(spec=pl.Trainer, sanity_checking=False, global_step=7, is_global_zero=True, current_epoch=0)

    first = KeepBest(run, lambda path: None, streets, num_pictures=0)
    first.on_validation_end(trainer, _validated(50.0, found, scorer))
    first.on_validation_end(trainer, _validated(40.0, nothing, scorer))  # worse: not what is jittered
    assert not (tmp_path / "score_jitter.json").exists()

    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed = KeepBest(run, lambda path: None, streets)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert (resumed.best, resumed.best_step) == (50.0, 7)
    jitter = []
    for keeper in (first, resumed):
        keeper.measure_jitter(scorer)
        jitter.append(json.loads((tmp_path / "score_jitter.json").read_text()))
    assert jitter[0] == jitter[1]
    assert max(jitter[0]["spread"]["car"]["3d@0.7"]["AP_R40"]) > 0


def test_without_a_validation_nothing_is_measured(tmp_path: Path) -> None:
    streets = SimulatedSweeps({"azimuth_steps": 36, "beam_stride": 16}, num_sequences=1, frames_per_sequence=1)
    keeper, fresh = (KeepBest(_run(tmp_path), lambda path: None, streets) for _ in range(2))
    fresh.load_state_dict(keeper.state_dict())
    fresh.measure_jitter(scorer_for(streets, ["Car"], GRID))
    assert not list(tmp_path.iterdir())
