"""Flow files of others: written here in their layouts, each broken in one way, and the real sample."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import feather

from equilidar.data.argoverse2_flow import Argoverse2Flow
from equilidar.flow import ExactFlow, PrecomputedFlow, check_label_free, check_teacher
from equilidar.structures import SweepPair, SweepPairBatch

from .pairs import grid_points, moved, rigid_matrix, sweep_pair

MOTION = rigid_matrix(0.1, (1.0, 0.0, 0.0))
XYZ = grid_points(3, 3.0, 0.3)
FLOW = torch.rand(len(XYZ), 3, generator=torch.Generator().manual_seed(1))
VALID = torch.arange(len(XYZ)) % 3 != 0


def pair_of(gap: float = 0.1, xyz: torch.Tensor = XYZ) -> SweepPair:
    pair = sweep_pair(xyz, moved(xyz, MOTION), MOTION, "x", gap)
    pair.source.key, pair.target.key = "argoverse2/log/100", "argoverse2/log/200"
    return pair


def batch_of(**options) -> SweepPairBatch:
    return SweepPairBatch.collate([pair_of(**options)])


def write_feather(folder: Path, flow: torch.Tensor = FLOW, valid: torch.Tensor | None = VALID) -> Path:
    columns = {f"flow_t{axis}_m": flow[:, i].numpy().astype(np.float16) for i, axis in enumerate("xyz")}
    if valid is not None:
        columns["is_valid"] = valid.numpy()
    (folder / "log").mkdir(parents=True, exist_ok=True)
    path = folder / "log" / "100.feather"
    feather.write_feather(pa.table(columns), path)
    return path


def write_h5(folder: Path, name: str = "log", **columns: np.ndarray) -> Path:
    """As OpenSceneFlow's dataprocess/README.md documents the files."""
    with h5py.File(folder / f"{name}.h5", "w") as file:
        for time in ("100", "200"):
            group = file.create_group(time)
            group.create_dataset("lidar", data=columns.get("lidar", XYZ.numpy()).astype(np.float32))
            group.create_dataset("ground_mask", data=np.zeros(len(XYZ), dtype=bool))
            group.create_dataset("pose", data=np.eye(4, dtype=np.float32))
            group.create_dataset("flow", data=FLOW.numpy().astype(np.float32))
            group.create_dataset("flow_is_valid", data=VALID.numpy())
            group.create_dataset("flow_category_indices", data=np.zeros(len(XYZ), dtype=np.uint8))
            group.create_dataset("ego_motion", data=MOTION.numpy().astype(np.float32))
            group.create_dataset("seflow_best", data=2 * FLOW.numpy().astype(np.float32))
    return folder / f"{name}.h5"


@pytest.mark.parametrize("kind", ["feather", "h5"])
def test_files_of_others_are_read_and_count_as_from_labels(tmp_path, kind: str):
    write_feather(tmp_path) if kind == "feather" else write_h5(tmp_path)
    estimator = PrecomputedFlow(tmp_path)
    field = estimator(batch_of())
    assert field.valid.equal(VALID) and field.confidence.equal(VALID.float())
    torch.testing.assert_close(field.flow, torch.where(VALID[:, None], FLOW, 0.0), atol=5e-4, rtol=0)
    assert estimator.from_labels
    with pytest.raises(ValueError, match=r"flow=precomputed_\w+ is derived from labels"):
        check_label_free(estimator)
    check_label_free(PrecomputedFlow(tmp_path, allow_labels=True))
    check_label_free(PrecomputedFlow(tmp_path, from_labels=False))


def test_estimates_in_h5_files_have_a_name_of_their_own(tmp_path):
    write_h5(tmp_path)
    estimator = PrecomputedFlow(tmp_path, column="seflow_best", from_labels=False)
    field = estimator(batch_of())
    assert field.valid.all() and field.flow.equal(2 * FLOW)
    assert estimator.name == "precomputed_opensceneflow" and estimator.settings == {"column": "seflow_best"}
    with pytest.raises(FileNotFoundError, match=r"has no 'deflow_best'; it has .*seflow_best"):
        PrecomputedFlow(tmp_path, column="deflow_best")(batch_of())


def test_unknown_flow_is_not_valid(tmp_path):
    flow = FLOW.clone()
    flow[4] = float("nan")
    write_feather(tmp_path, flow, None)
    field = PrecomputedFlow(tmp_path)(batch_of())
    assert field.valid.equal(torch.arange(len(XYZ)) != 4) and field.flow.isfinite().all()


def test_flow_of_other_sweeps_is_refused(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    for folder in (a, b, c):
        folder.mkdir()
    write_feather(a, FLOW[:-1], VALID[:-1])
    with pytest.raises(ValueError, match=r"17 rows for a sweep of 18 points"):
        PrecomputedFlow(a)(batch_of())
    write_h5(b, lidar=XYZ.numpy() + 0.1)
    with pytest.raises(ValueError, match=r"points of sweep 100 in .* are up to 0\.10 m elsewhere"):
        PrecomputedFlow(b)(batch_of())
    write_h5(c)
    for gap in (0.5, -0.1):
        with pytest.raises(ValueError, match=r"holds the flow to the next sweep"):
            PrecomputedFlow(c)(batch_of(gap=gap))
    other = pair_of()
    other.target.key = "argoverse2/log/300"
    with pytest.raises(ValueError, match="sweep 300 does not come next after 100"):
        PrecomputedFlow(c)(SweepPairBatch.collate([other]))


def test_missing_and_damaged_files_are_named(tmp_path):
    path = write_feather(tmp_path / "a")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"100\.feather is no flow file"):
        PrecomputedFlow(tmp_path / "a")(batch_of())
    path.rename(path.with_name("99.feather"))
    with pytest.raises(FileNotFoundError, match=r"no flow of sweep 100 of log"):
        PrecomputedFlow(tmp_path / "a")(batch_of())
    (tmp_path / "b").mkdir()
    h5 = write_h5(tmp_path / "b", "another")
    with pytest.raises(FileNotFoundError, match=r"no flow of sequence log"):
        PrecomputedFlow(tmp_path / "b")(batch_of())
    (tmp_path / "b" / "log.h5").write_bytes(h5.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"log\.h5 is no h5 file"):
        PrecomputedFlow(tmp_path / "b")(batch_of())
    with pytest.raises(FileNotFoundError, match="no flow cache at"):
        PrecomputedFlow(tmp_path / "nowhere")


def test_a_run_is_refused_before_it_begins(tmp_path):
    class Pairs:
        keys = ("faulty", pair_of().key)

        def __getitem__(self, index: int) -> SweepPair:
            if index == 0:
                raise ValueError("truncated")
            return pair_of()

    write_feather(tmp_path)
    check_teacher(PrecomputedFlow(tmp_path, allow_labels=True), Pairs())
    (tmp_path / "log" / "100.feather").rename(tmp_path / "log" / "101.feather")
    with pytest.raises(FileNotFoundError, match="no flow of sweep 100"):
        check_teacher(PrecomputedFlow(tmp_path, allow_labels=True), Pairs())


def test_flow_files_of_the_sample_are_what_the_dataset_gives(samples, tmp_path):
    if not list((samples / "argoverse2").rglob("flow_labels.feather")):
        pytest.skip("no Argoverse 2 log with flow")
    pairs = Argoverse2Flow(samples / "argoverse2")
    for index, file in enumerate(pairs.flow_files):
        pair = pairs[index]
        _, log, time = pair.source.key.rsplit("/", 2)
        (tmp_path / log).mkdir(exist_ok=True)
        (tmp_path / log / f"{time}.feather").symlink_to(file)
        batch = SweepPairBatch.collate([pair])
        assert PrecomputedFlow(tmp_path)(batch).flow.equal(ExactFlow()(batch).flow)
