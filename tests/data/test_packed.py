"""What is packed comes back: through the map, in other processes, at other gaps; and boxes only where they may."""

import multiprocessing
import pickle
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from equilidar.data.faults import FaultySweepError
from equilidar.data.folder import FolderPairs
from equilidar.data.kitti_object import KittiObject
from equilidar.data.kitti_odometry import KittiOdometry
from equilidar.data.loading import make_loader
from equilidar.data.packed import PackedPairs, pairs_of
from equilidar.data.packed_labelled import PackedAnnotatedSweeps, PackedSweeps, open_labelled
from equilidar.data.protocols import HasSweeps, LabelledDataset, PairDataset
from equilidar.data.recordings import Frame, PointFileReader, RecordedPairs, Run
from equilidar.data.simulator import SimulatedPairs, SimulatedSweeps
from equilidar.structures import LabelledSweep
from tests.data.fake_data import CONTRACT, FakeSamples, cloud, write_bin
from tests.data.fake_kitti import camera_poses, write_object_data, write_odometry
from tests.data.packed_stores import assert_same_boxes, assert_same_pairs, assert_same_sweep, pack, write_log

SENSOR = {"name": "hdl64e", "azimuth_steps": 90, "beam_stride": 8}


@pytest.mark.parametrize(("gap", "frame_step"), [(2, 1), (1, 3)])
def test_simulated_pairs_come_back(tmp_path: Path, gap: int, frame_step: int):
    raw = SimulatedPairs(SENSOR, num_sequences=2, frames_per_sequence=3, gap=gap, frame_step=frame_step)
    assert isinstance(raw, HasSweeps)
    index = pack(raw, tmp_path / "store")
    packed = PackedPairs(tmp_path / "store")
    assert isinstance(packed, PairDataset)
    assert_same_pairs(raw, packed)
    assert packed.provenance()["source"]["hash"] == raw.provenance()["hash"]
    assert index.num_sweeps == packed.num_sweeps == len(raw.sweep_keys) == len(set(raw.sweep_keys))


def test_recorded_pairs_come_back_with_their_gaps(tmp_path: Path):
    """Frames 0, 1, 2 and 5, 6: no pair lies across the hole, at any gap."""
    write_odometry(tmp_path / "raw")
    raw = KittiOdometry(tmp_path / "raw", allow_validation_drives=True)
    pack(raw, tmp_path / "store", sweeps_per_file=2)  # files end within runs
    assert len(list((tmp_path / "store" / "sequences").glob("*.arrow"))) == 3
    assert_same_pairs(raw, PackedPairs(tmp_path / "store"))
    wider = KittiOdometry(tmp_path / "raw", gap=2, allow_validation_drives=True)
    assert_same_pairs(wider, PackedPairs(tmp_path / "store", gap=2))
    with pytest.raises(ValueError, match=r"dataset.gap"):
        PackedPairs(tmp_path / "store", gap=3)


def test_where_only_some_sweeps_are_targets_no_others_are_packed(tmp_path: Path):
    frames = [Frame(f"log/s/{i}", write_bin(tmp_path / f"{i}.bin", cloud(i)), i, 0.1 * i) for i in range(8)]
    runs, keys = [Run(frames, camera_poses(8))], {"log/s/1", "log/s/4", "log/s/7"}
    raw = RecordedPairs("log", runs, PointFileReader(), 2, target_keys=keys)
    index = pack(raw, tmp_path / "store")
    packed = PackedPairs(tmp_path / "store")
    assert_same_pairs(raw, packed)
    assert packed.keys == ["log/s/2->log/s/4", "log/s/5->log/s/7"]
    assert packed.sweep_keys == [f"log/s/{i}" for i in (2, 4, 5, 7)] and index.num_sweeps == 4
    with pytest.raises(ValueError, match="choose another"):
        PackedPairs(tmp_path / "store", gap=1)


def test_sample_pairs_come_back(samples: Path, tmp_path: Path):
    roots = sorted(path.parent for path in samples.glob("*/sequences") if path.is_dir())
    if not roots:
        pytest.skip(f"no sequences under {samples}")
    for number, root in enumerate(roots):
        raw = KittiOdometry(root, allow_validation_drives=True, cache_dir=tmp_path / "poses")
        pack(raw, tmp_path / str(number))
        assert_same_pairs(raw, PackedPairs(tmp_path / str(number)))


def test_sample_labelled_sweeps_come_back(samples: Path, tmp_path: Path):
    if not (samples / "kitti_object" / "training").is_dir():
        pytest.skip(f"no kitti_object under {samples}")
    raw = KittiObject(samples / "kitti_object", split="all")
    pack(raw, tmp_path / "store")
    packed = open_labelled(tmp_path / "store")
    assert packed.keys == raw.keys
    for index in range(len(raw)):
        assert_same_sweep(packed[index].sweep, raw[index].sweep)
        assert_same_boxes(packed[index].boxes, raw[index].boxes)


def test_simulated_labels_and_annotations_come_back(tmp_path: Path):
    raw = SimulatedSweeps(SENSOR, num_sequences=2, frames_per_sequence=2, frame_step=8, seed=3)
    pack(raw, tmp_path / "store")
    packed = open_labelled(tmp_path / "store")
    assert isinstance(packed, LabelledDataset) and isinstance(packed, PackedAnnotatedSweeps)
    assert (packed.keys, packed.class_names, packed.contract) == (raw.keys, raw.class_names, raw.contract)
    assert sum(len(raw[i].boxes) for i in range(len(raw))) > 0
    for i in range(len(raw)):
        assert isinstance(packed[i], LabelledSweep)
        assert_same_sweep(packed[i].sweep, raw[i].sweep)
        assert_same_boxes(packed[i].boxes, raw[i].boxes)
        ours, theirs = packed.annotations(i), raw.annotations(i)
        assert_same_boxes(ours.boxes, theirs.boxes)
        for name in ("difficulty", "num_points", "occluded"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_order_of_the_dataset_is_kept_and_boxes_may_be_none(tmp_path: Path):
    class Mixed(FakeSamples):
        @property
        def keys(self) -> list[str]:
            return [f"fake/{'ab'[i % 2]}/{i}" for i in range(self.num)]

        def __getitem__(self, index: int) -> LabelledSweep:
            item = super().__getitem__(index)
            assert isinstance(item, LabelledSweep)
            item.sweep.key = self.keys[index]
            return item

    raw = Mixed(7, "labelled")
    pack(raw, tmp_path / "store", sweeps_per_file=2)
    packed = open_labelled(tmp_path / "store")
    assert type(packed) is PackedSweeps
    assert packed.keys == raw.keys and [packed[i].key for i in range(7)] == raw.keys
    assert all(len(packed[i].boxes) == 0 for i in range(7))


def test_points_lie_in_the_map_and_writing_to_them_stays_in_the_process(tmp_path: Path):
    pack(FolderPairs(write_log(tmp_path / "log")), tmp_path / "store")
    data = PackedPairs(tmp_path / "store")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = data[0].source.xyz
    before = first.clone()
    assert data[0].source.xyz.data_ptr() == first.data_ptr(), "a copy"
    first += 1
    assert torch.equal(data[0].source.xyz, before + 1)
    assert torch.equal(PackedPairs(tmp_path / "store")[0].source.xyz, before)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_read_by_other_processes(tmp_path: Path, method: str):
    pack(FolderPairs(write_log(tmp_path / "log")), tmp_path / "store")
    data = PackedPairs(tmp_path / "store")
    expected = [data[i].source.xyz.sum().item() for i in range(len(data))]
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.starmap(sum_of_source, [(data, i) for i in range(len(data))]) == expected
    assert len(pickle.dumps(data)) < 10_000
    loader = make_loader(data, "pairs", 2, seed=0, num_workers=2)
    assert sorted(key for loaded in loader for key in loaded.batch.keys) == sorted(data.keys)


def sum_of_source(data: PackedPairs, index: int) -> float:
    return data[index].source.xyz.sum().item()


def test_sequences_are_chosen_by_name(tmp_path: Path):
    pack(FolderPairs(write_log(tmp_path / "log")), tmp_path / "store")
    only = PackedPairs(tmp_path / "store", sequences=["b"])
    assert only.keys == [key for key in PackedPairs(tmp_path / "store").keys if "/b/" in key]
    assert only.provenance()["hash"] != PackedPairs(tmp_path / "store").provenance()["hash"]
    with pytest.raises(ValueError, match="no 'c' in the store; there are folder/a, folder/b"):
        PackedPairs(tmp_path / "store", sequences=["c"])


def test_a_reader_of_pairs_is_refused_boxes(tmp_path: Path):
    """By the index, by the file's own columns if the index lies, and the other way round."""
    pack(KittiObject(write_object_data(tmp_path / "raw")), tmp_path / "labelled")
    pack(FolderPairs(write_log(tmp_path / "log")), tmp_path / "pairs")
    with pytest.raises(ValueError, match=r"store of labelled sweeps, not of pairs.*packed_labelled"):
        PackedPairs(tmp_path / "labelled")
    with pytest.raises(ValueError, match="store of pairs, not of labelled sweeps"):
        open_labelled(tmp_path / "pairs")

    path = tmp_path / "pairs" / "sequences"
    names = sorted(file.name for file in path.glob("*.arrow"))
    table = pa.ipc.open_file(path.joinpath(names[0]).read_bytes()).read_all()
    assert table.schema.names == ["key", "timestamp", "world_T_sensor", "xyz", "features"]
    data = PackedPairs(tmp_path / "pairs")
    with_boxes = table.append_column("boxes", pa.array([[]] * len(table), pa.list_(pa.float32())))
    with pa.ipc.new_file(str(path / names[0]), with_boxes.schema) as writer:
        writer.write_table(with_boxes, max_chunksize=1)
    with pytest.raises(ValueError, match="column 'boxes', which this reader may not see"):
        data[0]


def test_damaged_rows_are_faulty_sweeps(tmp_path: Path):
    index = pack(FolderPairs(write_log(tmp_path / "log", sequences=("a",))), tmp_path / "store")
    data = PackedPairs(tmp_path / "store")
    content = index.paths[0].read_bytes()
    index.paths[0].write_bytes(content.replace(b"folder/a/1", b"folder/x/1"))
    with pytest.raises(FaultySweepError, match="row 1 is folder/x/1, not folder/a/1"):
        data[0]
    assert data[2].source.key == "folder/a/2"


def test_pairs_of_runs_with_holes():
    sweeps = {
        "run": np.array([0, 0, 0, 1, 1, 0]),
        "position": np.array([0, 1, 3, 0, 1, 4]),
        "has_pose": np.array([True, True, True, True, False, True]),
        "is_target": np.ones(6, dtype=bool),
    }
    assert pairs_of(sweeps, 1).tolist() == [[0, 1], [2, 5]]
    assert pairs_of(sweeps, 2).tolist() == [[1, 2]]
    assert pairs_of({**sweeps, "is_target": sweeps["position"] != 1}, 1).tolist() == [[2, 5]]
    assert pairs_of({name: column[:0] for name, column in sweeps.items()}, 1).tolist() == []


def test_contract_without_channels_has_no_feature_column(tmp_path: Path):
    index = pack(FolderPairs(write_log(tmp_path / "log"), channels=(), scales=()), tmp_path / "store")
    assert "features" not in pa.ipc.open_file(index.paths[0].read_bytes()).schema.names
    assert index.contract.channels == () != CONTRACT.channels
