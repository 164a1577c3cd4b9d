"""The simulator's experiments: enough objects to judge by, and what their settings learn in a minute."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from tests.tools.test_finetune import ROOT, tool

EXPERIMENTS = ("sim_second", "sim_centerpoint", "sim_voxel_rcnn")
ENOUGH = 100
# The area around the sensor alone, and few streets: a minute of one core instead of an hour of two.
REDUCED = ("grid.point_range=[-12.8,-12.8,-3.0,12.8,12.8,1.0]", "trainer.max_epochs=12", "ema.decay=0.98")


@pytest.mark.slow
def test_every_class_and_difficulty_has_objects_enough_to_judge_by() -> None:
    from equilidar.training.scoring import scorer_for

    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("finetune", ["dataset=simulator_val", "grid=sim_circle"])
    validation = instantiate(cfg.dataset, _convert_="all")
    figures = scorer_for(validation, validation.class_names, instantiate(cfg.grid))({}).figures
    assert len(validation) == 160
    for name, own in figures.items():
        assert min(own["num_ground_truth"]) >= ENOUGH, (name, own["num_ground_truth"])


def test_the_three_differ_in_nothing_but_the_detector() -> None:
    composed = {}
    for name in EXPERIMENTS:
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            cfg = compose("finetune", [f"+experiment={name}"])
        composed[name] = {key: value for key, value in cfg.items() if key != "detector"}
        assert cfg.detector.neck.norm_momentum == 0.1 and cfg.validation.root != cfg.dataset.root
    assert composed["sim_second"] == composed["sim_centerpoint"] == composed["sim_voxel_rcnn"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("packed")
    few = {"train": ("dataset.num_sequences=30", "dataset.frames_per_sequence=2"), "val": ("dataset.num_sequences=15",)}
    for name, settings in few.items():
        packed = tool("prepare", f"dataset=simulator_{name}", *settings, f"output={folder / name}", "num_workers=1")
        assert packed.returncode == 0, packed.stderr
    return f"dataset.root={folder / 'train'}", f"validation.root={folder / 'val'}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["sim_second"])
def test_cars_are_learned_at_reduced_size(name: str, stores: tuple[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = tool("finetune", f"+experiment={name}", *REDUCED, *stores, f"paths.run={run}")
    assert done.returncode == 0, done.stderr
    car = json.loads((run / "metrics.json").read_text())["car"]
    assert car["3d@0.5"]["AP_R40"][1] > 25, car
