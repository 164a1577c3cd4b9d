"""The gt database: what is in it, that it carries its labels' hash, and how it behaves in other processes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from equilidar.data import gt_database
from equilidar.data.faults import FaultySweepError
from equilidar.data.gt_database import UNKNOWN_DIFFICULTY, GtDatabase, build_gt_database
from equilidar.data.kitti_object import KittiObject
from equilidar.data.simulator import SimulatedSweeps
from equilidar.data.subsets import LabelledSubset
from equilidar.evaluation.kitti import ground_truth_states
from equilidar.evaluation.kitti_files import read_labels
from equilidar.evaluation.matching import COUNTS
from tests.data.fake_data import FakeSamples
from tests.data.labelled_rooms import Rooms


def test_every_object_is_there_with_its_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gt_database, "_OBJECTS_PER_BATCH", 5)  # several batches, the last one not full
    rooms = Rooms(6)
    subset = LabelledSubset(rooms, 0.5, 1)
    built = build_gt_database(subset, tmp_path / "gt.arrow")
    database = GtDatabase(built.path)
    assert (database.hash, database.class_names) == (subset.subset.hash, rooms.class_names)
    assert len(database) == sum(built.counts.values()) == 3 * rooms.objects
    row = 0
    for index in subset.indices:
        item = rooms[index]
        cloud = torch.cat([item.sweep.xyz, item.sweep.features], 1)
        for box, inside in enumerate(item.boxes.contains(item.sweep.xyz)):
            assert (database.keys[row], database.label[row]) == (item.key, int(item.boxes.label[box]))
            np.testing.assert_array_equal(database.box[row], item.boxes.as_tensor()[box])
            np.testing.assert_array_equal(database.points(row), cloud[inside])
            assert database.num_points[row] == int(inside.sum()) and database.difficulty[row] == box % 4
            assert np.isnan(database.velocity[row]).all()
            row += 1
    assert list(tmp_path.iterdir()) == [built.path]
    assert database.provenance()["labels"] == subset.subset.identity()


def test_a_copy_in_another_process_maps_the_same_file(tmp_path: Path):
    database = GtDatabase(build_gt_database(LabelledSubset(Rooms(4)), tmp_path / "gt.arrow").path)
    sent = pickle.dumps(database)
    assert len(sent) < 500  # a path, not the points
    np.testing.assert_array_equal(pickle.loads(sent).points(3), database.points(3))
    assert not database.points(0).flags.writeable


def test_difficulty_is_unknown_where_the_dataset_does_not_say(tmp_path: Path):
    class Unrated(Rooms):
        difficulties = None

    database = GtDatabase(build_gt_database(LabelledSubset(Unrated(2)), tmp_path / "gt.arrow").path)
    assert (database.difficulty == UNKNOWN_DIFFICULTY).all()


def test_sweeps_that_cannot_be_read_are_named_and_nothing_at_all_is_an_error(tmp_path: Path):
    class Broken(Rooms):
        def __getitem__(self, index: int):
            if index == 1:
                raise FaultySweepError("file 1 is broken")
            return super().__getitem__(index)

    built = build_gt_database(LabelledSubset(Broken(4)), tmp_path / "gt.arrow")
    assert [fault.key for fault in built.faults] == ["rooms/00/01"] and sum(built.counts.values()) == 12
    with pytest.raises(ValueError, match="hold no object with a point"):
        build_gt_database(LabelledSubset(FakeSamples(4, "labelled")), tmp_path / "none.arrow")
    assert not (tmp_path / "none.arrow").exists()


def test_damaged_files(tmp_path: Path):
    path = build_gt_database(LabelledSubset(Rooms(4)), tmp_path / "gt.arrow").path
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"something else, and long enough to hold a footer"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no whole gt database"):
            GtDatabase(path)
    with pytest.raises(FileNotFoundError, match=r"build it from the same labels with python tools/gt_database\.py"):
        GtDatabase(tmp_path / "absent.arrow")


def test_simulated_difficulties_are_those_of_the_boxes(tmp_path: Path):
    dataset = SimulatedSweeps({"name": "hdl64e", "azimuth_steps": 360, "beam_stride": 4}, 2, 1)
    for index in range(len(dataset)):
        item, difficulty = dataset[index], dataset.difficulties(index)
        assert len(difficulty) == len(item.boxes) and set(difficulty.tolist()) <= {0, 1, 2, 3}
        assert item.obstacles is not None  # vans and trucks


def test_sample_kitti_difficulties_are_the_evaluators(samples: Path):
    if not (samples / "kitti_object").is_dir():
        pytest.skip(f"no KITTI frames under {samples}")
    dataset = KittiObject(samples / "kitti_object", "all", class_names=("Car",))
    for index, frame in enumerate(dataset.frame_ids):
        table = read_labels(samples / "kitti_object" / "training" / "label_2", [frame])
        of_class = table.kind == 0
        for level in range(3):
            counts = ground_truth_states(table, "car", level)[of_class] == COUNTS
            np.testing.assert_array_equal(counts, dataset.difficulties(index).numpy() <= level)
        item = dataset[index]
        others = sum(name not in ("Car", "DontCare") for name in dataset.objects(index).types)
        assert (0 if item.obstacles is None else len(item.obstacles)) == others
