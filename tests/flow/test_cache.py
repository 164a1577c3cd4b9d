import json
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.flow import (
    ExactFlow,
    FlowCache,
    NearestFlow,
    PrecomputedFlow,
    RigidFlow,
    ShuffledFlow,
    check_label_free,
    check_teacher,
    precompute,
)
from equilidar.flow.fingerprint import fingerprint
from equilidar.structures import FlowField, SweepPair, SweepPairBatch

from .pairs import grid_points, moved, rigid_matrix, sweep_pair


class Pairs:
    """Three pairs of different sizes; counts how often one is read."""

    def __init__(self) -> None:
        motion = rigid_matrix(0.1, (1.0, 0.0, 0.0))
        self.pairs = [
            sweep_pair(grid_points(n, 3.0, 0.2, n), moved(grid_points(n, 3.0, 0.2, n), motion), motion, f"log/{n}")
            for n in (2, 3, 4)
        ]
        for pair in self.pairs:
            pair.flow = torch.ones_like(pair.source.xyz)
            pair.flow_valid = torch.ones(len(pair.flow), dtype=torch.bool)
        self.reads = 0

    @property
    def keys(self) -> list[str]:
        return [pair.key for pair in self.pairs]

    def __getitem__(self, index: int) -> SweepPair:
        self.reads += 1
        return self.pairs[index]


@pytest.fixture
def cached(tmp_path):
    pairs = Pairs()
    assert precompute(pairs, NearestFlow(radius=1.5), tmp_path) == 3
    return pairs, tmp_path


def test_stored_flow_is_what_the_estimator_gave_in_whatever_batch(cached):
    pairs, directory = cached
    batch = SweepPairBatch.collate([pairs.pairs[i] for i in (2, 0)])
    stored, fresh = PrecomputedFlow(directory)(batch), NearestFlow(radius=1.5)(batch)
    for name in ("flow", "valid", "confidence"):
        assert getattr(stored, name).equal(getattr(fresh, name))


class Given:
    """Gives a flow that the test chose."""

    name, from_labels, settings = "given", False, {}

    def __init__(self, field: FlowField) -> None:
        self.field = field

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        return self.field


@given(st.integers(0, 2**31), st.floats(0.0, 8.0), st.floats(-3.1, 3.1))
@settings(max_examples=25, deadline=None)
def test_stored_flow_is_exact_at_rest_and_off_by_less_than_a_millimetre_elsewhere(seed: int, far: float, yaw: float):
    generator = torch.Generator().manual_seed(seed)
    xyz = 160 * torch.rand(300, 3, generator=generator) - 80
    motion = rigid_matrix(yaw, (3.0, -1.0, 0.2))
    batch = SweepPairBatch.collate([sweep_pair(xyz, xyz, motion)])
    residual = far * (2 * torch.rand(300, 3, generator=generator) - 1)
    residual[:150] = 0
    rigid = RigidFlow()(batch).flow
    true = FlowField(rigid + residual, residual[:, 0] >= 0, torch.rand(300, generator=generator))
    with tempfile.TemporaryDirectory() as folder:
        cache = FlowCache.create(folder, Given(true))
        cache.write(batch, true)
        stored = cache.read(batch)
    assert stored.flow[:150].equal(true.flow[:150]) and stored.valid.equal(true.valid)
    # float16 rounds to 2^-11 of the value; adding to the ego motion costs a few last bits of float32.
    assert ((stored.flow - true.flow).abs() <= residual.abs() * 2**-11 + 3e-5).all()
    assert ((stored.flow - true.flow).abs() <= 1e-3 + 3e-5)[residual.abs() < 4].all()
    assert (stored.confidence - true.confidence).abs().max() <= 0.5 / 255 + 1e-6


def test_flow_that_cannot_be_stored_is_refused_where_it_is_said_to_be_valid(tmp_path):
    pairs = Pairs()
    batch = SweepPairBatch.collate(pairs.pairs[:1])
    flow = torch.zeros(8, 3)
    flow[3], flow[5] = float("nan"), 1e6
    valid = torch.ones(8, dtype=torch.bool)
    field = FlowField(flow, valid, torch.ones(8))
    cache = FlowCache.create(tmp_path, Given(field))
    for broken in (3, 5):
        valid[:] = False
        valid[broken] = True
        field.flow = torch.where(valid[:, None], flow, 0.0)
        with pytest.raises(ValueError, match="not finite or kilometres long"):
            cache.write(batch, field)
    valid[:] = True
    valid[3] = False
    field.flow = torch.where(torch.arange(8)[:, None] == 5, 0.0, flow)
    cache.write(batch, field)
    assert cache.read(batch).flow.isfinite().all()


def test_a_run_is_refused_before_it_begins(cached):
    pairs, directory = cached
    flow = PrecomputedFlow(directory)
    check_teacher(flow, pairs)
    FlowCache.open(directory).path(pairs.keys[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of 3 pairs of the dataset, the first is log/3/0"):
        check_teacher(flow, pairs)
    with pytest.raises(FileNotFoundError, match="lacks 1 of 3"):
        check_teacher(ShuffledFlow(flow), pairs)
    (directory / "faults.json").write_text(json.dumps({pairs.keys[1]: "truncated"}))
    check_teacher(flow, pairs)
    pairs.pairs[0].source.xyz = pairs.pairs[0].source.xyz + 1
    with pytest.raises(ValueError, match="are not those whose flow was stored"):
        check_teacher(flow, pairs)


def test_a_cache_of_another_format_or_of_other_data_is_refused(tmp_path):
    FlowCache.create(tmp_path, RigidFlow(), {"name": "log", "hash": "aa", "num_pairs": 3})
    FlowCache.create(tmp_path, RigidFlow(), {"name": "log", "hash": "aa", "num_pairs": 3})
    with pytest.raises(ValueError, match=r"made by rigid {} for log \(aa\), not by rigid {} for log \(bb\)"):
        FlowCache.create(tmp_path, RigidFlow(), {"name": "log", "hash": "bb", "num_pairs": 3})
    stamp = json.loads((tmp_path / "stamp.json").read_text())
    (tmp_path / "stamp.json").write_text(json.dumps({**stamp, "format": 1}))
    with pytest.raises(ValueError, match="is of format 1, not 2"):
        FlowCache.open(tmp_path)


def test_precomputing_goes_on_where_it_stopped(cached):
    pairs, directory = cached
    FlowCache.open(directory).path(pairs.keys[1]).unlink()
    pairs.reads = 0
    assert precompute(pairs, NearestFlow(radius=1.5), directory) == 1
    assert pairs.reads == 1
    assert not list(directory.rglob("*.part"))


def test_other_settings_are_refused_when_writing_and_when_reading(cached):
    pairs, directory = cached
    with pytest.raises(ValueError, match="choose another folder"):
        precompute(pairs, NearestFlow(radius=1.0), directory)
    with pytest.raises(ValueError, match=r"flow\.settings\.radius"):
        PrecomputedFlow(directory, settings={"radius": 1.0})
    with pytest.raises(ValueError, match=r"flow\.estimator=rigid"):
        PrecomputedFlow(directory, "rigid")
    assert PrecomputedFlow(directory, "nearest", {"radius": 1.5}).name == "precomputed_nearest"


@pytest.mark.parametrize("change", ["source", "target", "motion", "gap", "order"])
def test_other_data_is_refused(cached, change: str):
    pairs, directory = cached
    pair = pairs.pairs[0]
    if change == "source":
        pair.source.xyz = pair.source.xyz + torch.tensor([0.0, 0.0, 1e-3])
    elif change == "target":
        pair.target.xyz = pair.target.xyz + torch.tensor([0.0, 1e-3, 0.0])
    elif change == "motion":
        pair.target_T_source = rigid_matrix(0.1001, (1.0, 0.0, 0.0))
    elif change == "gap":
        pair.target.timestamp = 0.2
    else:
        pair.source.xyz = pair.source.xyz.flip(0)
    batch = SweepPairBatch.collate([pairs.pairs[1], pair])
    with pytest.raises(ValueError, match="are not those whose flow was stored"):
        PrecomputedFlow(directory)(batch)


def test_missing_pairs_and_missing_caches_name_what_is_missing(cached, tmp_path):
    pairs, directory = cached
    FlowCache.open(directory).path(pairs.keys[0]).unlink()
    with pytest.raises(FileNotFoundError, match="holds no flow of pair log/2/0->log/2/1"):
        PrecomputedFlow(directory)(SweepPairBatch.collate(pairs.pairs))
    with pytest.raises(FileNotFoundError, match="no flow cache at"):
        PrecomputedFlow(tmp_path / "nowhere")


def test_damaged_files_are_errors(cached):
    pairs, directory = cached
    path = FlowCache.open(directory).path(pairs.keys[0])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged"):
        PrecomputedFlow(directory)(SweepPairBatch.collate(pairs.pairs))
    (directory / "stamp.json").write_text("{")
    with pytest.raises(ValueError, match="is no stamp"):
        PrecomputedFlow(directory)


def test_a_file_of_another_cache_is_refused(cached, tmp_path):
    pairs, directory = cached
    other = tmp_path / "other"
    precompute(pairs, RigidFlow(), other)
    key = pairs.keys[0]
    FlowCache.open(directory).path(key).write_bytes(FlowCache.open(other).path(key).read_bytes())
    with pytest.raises(ValueError, match="by other settings"):
        PrecomputedFlow(directory)(SweepPairBatch.collate(pairs.pairs))


def test_files_hold_no_pickle(cached):
    pairs, directory = cached
    with np.load(FlowCache.open(directory).path(pairs.keys[0]), allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_a_cache_of_labels_stays_one(tmp_path):
    precompute(Pairs(), ExactFlow(allow_labels=True), tmp_path)
    assert json.loads((tmp_path / "stamp.json").read_text())["from_labels"] is True
    with pytest.raises(ValueError, match="flow=precomputed_exact is derived from labels"):
        check_label_free(PrecomputedFlow(tmp_path))
    check_label_free(PrecomputedFlow(tmp_path, allow_labels=True))


def test_fingerprints_do_not_depend_on_the_batch():
    pairs = Pairs().pairs
    alone = torch.cat([fingerprint(SweepPairBatch.collate([pair])) for pair in pairs])
    assert fingerprint(SweepPairBatch.collate(pairs)).equal(alone)
    assert len(alone.unique()) == 3
