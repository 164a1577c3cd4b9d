"""Ground truth from the official tables; the expected figures are those of nuscenes-devkit 1.2.0 on the same files."""

import json
from pathlib import Path

import numpy as np
import pytest

from equilidar.evaluation.nuscenes_boxes import CLASSES
from equilidar.evaluation.nuscenes_evaluator import NuscenesEvaluator
from equilidar.evaluation.nuscenes_splits import scenes_of_split
from equilidar.evaluation.nuscenes_tables import read_tables
from tests.evaluation.fake_nuscenes_tables import SAMPLES_PER_SCENE, SCENES, make_submission, write_tables

VALIDATION = SCENES[:2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    version = write_tables(tmp_path / "nuscenes")
    (tmp_path / "submission.json").write_text(json.dumps(make_submission(version, VALIDATION)))
    return tmp_path


def test_figures_agree_with_the_development_kit(root: Path) -> None:
    figures = NuscenesEvaluator(root / "nuscenes", root / "submission.json", "mini_val").evaluate()
    assert figures["n_raw"] == {"gt": 66, "pred": 132}
    # Of the boxes that are missing here, two each lie in bicycle racks.
    assert figures["n_after_filter"] == {"gt": 52, "pred": 129}
    assert figures["mean_ap"] == pytest.approx(0.12264151467277992, abs=1e-12)
    assert figures["nd_score"] == pytest.approx(0.18333659447217268, abs=1e-12)
    errors = [0.7876592441328577, 0.6490634367167145, 0.7181189477926004, 1.3671501155533035, 0.625]
    assert list(figures["tp_errors"].values()) == pytest.approx(errors, abs=1e-12)


def test_velocity_is_the_central_difference_within_three_seconds(root: Path) -> None:
    boxes = read_tables(root / "nuscenes", "mini_val").boxes
    assert boxes.samples == tuple(f"sample-{scene}-{index}" for scene in (0, 1) for index in range(SAMPLES_PER_SCENE))
    # Objects move by 0.7 m from sample to sample, at 0, 0.5, 1 and 4.5 s.
    expected = {0: 0.7 / 0.5, 1: 1.4 / 1.0, 2: np.nan, 3: np.nan}
    for index, speed in expected.items():
        velocity = boxes.velocity[boxes.sample == index, 0]
        alone = np.isnan(velocity)
        assert alone.all() if np.isnan(speed) else np.allclose(velocity[~alone], speed)


def test_only_classes_of_the_benchmark_are_read_and_racks_apart(root: Path) -> None:
    truth = read_tables(root / "nuscenes" / "v1.0-mini")
    assert set(np.unique(truth.boxes.label)) == {
        CLASSES.index(name) for name in ("car", "bicycle", "pedestrian", "traffic_cone")
    }
    assert len(truth.boxes.samples) == 3 * SAMPLES_PER_SCENE and len(truth.racks.sample) > 0
    # The key frame of LIDAR_TOP, not one of the poses 30 m away.
    np.testing.assert_allclose(truth.ego[:4, 0], [400, 403, 406, 409])


def test_missing_samples_point_to_the_split(root: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks 4 samples .* evaluator.split=val"):
        NuscenesEvaluator(root / "nuscenes", root / "submission.json").evaluate()


@pytest.mark.parametrize(
    ("table", "find", "put", "message"),
    [
        ("sample_annotation", '"size": [\n1.5', '"size": [\n-1.5', "size that is not positive"),
        ("sample_annotation", '"attribute_tokens": []', '"attribute_tokens": ["x", "y"]', "2 attributes"),
        ("ego_pose", '"token": "pose-sample-0-1-LIDAR_TOP-True"', '"token": "?"', "sample-0-1 has no key frame"),
        ("sample", "[", "{", "sample.json: expected an array"),
    ],
)
def test_a_faulty_table_is_named(root: Path, table: str, find: str, put: str, message: str) -> None:
    path = root / "nuscenes" / "v1.0-mini" / f"{table}.json"
    text = path.read_text()
    assert find in text
    path.write_text(text.replace(find, put, 1))
    with pytest.raises(ValueError, match=message):
        read_tables(root / "nuscenes")


def test_a_folder_without_tables_or_with_several_versions(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder of nuScenes tables"):
        read_tables(tmp_path / "nothing")
    write_tables(root / "other").rename(root / "nuscenes" / "v1.0-other")
    with pytest.raises(ValueError, match="several versions"):
        read_tables(root / "nuscenes")


def test_splits(tmp_path: Path) -> None:
    numbered = {f"scene-{number:04d}" for number in range(1, 1111)}
    assert [len(scenes_of_split(name, numbered)) for name in ("val", "test", "mini_train", "mini_val")] == [
        150,
        150,
        8,
        2,
    ]
    assert scenes_of_split("mini_val", {*VALIDATION, "scene-0061"}) == set(VALIDATION)
    train = scenes_of_split("train", numbered)
    assert not train & scenes_of_split("val", numbered) and len(train) == 700
    (tmp_path / "own.txt").write_text("scene-0061\n")
    assert scenes_of_split(str(tmp_path / "own.txt"), set(SCENES)) == {"scene-0061"}
    for split, message in (("vall", "split is 'vall'"), ("val", "lack 150 of 150 scenes"), ("train", "v1.0-trainval")):
        with pytest.raises(ValueError, match=message):
            scenes_of_split(split, {"scene-0061"})
