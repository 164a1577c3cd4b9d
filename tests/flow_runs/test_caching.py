"""Caching a dataset's flow in processes: what is skipped, what stops it, what it promises beforehand."""

import json
from pathlib import Path

import pytest
import torch

from equilidar.data.faults import FaultBudget, FaultySweepError, TooManyFaultsError
from equilidar.flow import NearestFlow, PrecomputedFlow, RigidFlow, check_teacher
from equilidar.flow_runs.cache_workers import CachingError
from equilidar.flow_runs.caching import Caching
from equilidar.flow_runs.places import beside
from equilidar.nn.device import device_of
from equilidar.structures import FlowField, SweepPair, SweepPairBatch

from ..flow.pairs import CONTRACT, grid_points, moved, rigid_matrix, sweep_pair


class Log:
    """A few small pairs, one of which may be broken."""

    name, contract = "log", CONTRACT

    def __init__(self, broken: int | None = None, num: int = 6) -> None:
        motion = rigid_matrix(0.1, (1.0, 0.0, 0.0))
        clouds = [grid_points(8, 3.0, 0.5, seed) for seed in range(num)]
        self.pairs = [sweep_pair(xyz, moved(xyz, motion), motion, f"log/{i}") for i, xyz in enumerate(clouds)]
        self.keys, self.broken = [pair.key for pair in self.pairs], broken

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> SweepPair:
        if index == self.broken:
            raise FaultySweepError(f"sweep {index} is truncated")
        return self.pairs[index]


class Labelled(Log):
    class_names = ("Car",)


def caching(folder: Path, pairs=None, flow=None, output=None, **options) -> Caching:
    return Caching(pairs or Log(), flow or NearestFlow(), output, folder, **options)


def test_the_default_place_is_beside_the_data_and_named_by_flow_settings_and_data(tmp_path):
    names = {
        caching(tmp_path, pairs, flow).cache.directory
        for pairs in (Log(), Log(num=5))
        for flow in (RigidFlow(), NearestFlow(), NearestFlow(radius=1.0))
    }
    assert len(names) == 6 and {name.parent for name in names} == {tmp_path / "flow_cache"}
    assert {name.name.partition("-")[0] for name in names} == {"rigid", "nearest"}
    (tmp_path / "log.bag").touch()
    assert beside(str(tmp_path / "log.bag"), "runs") == tmp_path == beside(str(tmp_path), "runs")
    assert beside(None, "runs") == Path("runs")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_what_is_cached_is_what_the_estimator_gives(tmp_path, num_workers: int):
    pairs, job = Log(), caching(tmp_path, num_workers=num_workers)
    estimate = job.estimate()
    assert not job.cache.directory.exists(), "the estimate writes nothing"
    assert estimate.num_pairs == 6 and estimate.seconds > 0
    assert "flow of 6 pairs of log to compute" in job.describe(estimate)
    assert "6 pairs in" in job.run()
    size = sum(path.stat().st_size for path in job.cache.directory.rglob("*.npz"))
    assert size == pytest.approx(estimate.num_bytes, rel=0.5)
    check_teacher(PrecomputedFlow(job.cache.directory), pairs)
    batch = SweepPairBatch.collate([pairs[i] for i in (4, 1)])
    torch.testing.assert_close(
        PrecomputedFlow(job.cache.directory)(batch).flow, NearestFlow()(batch).flow, atol=1e-3, rtol=0
    )
    again = caching(tmp_path)
    assert (
        again.todo == []
        and again.estimate().num_bytes == 0
        and "6 are there already" in again.describe(again.estimate())
    )


def test_some_pairs_first_and_the_rest_later(tmp_path):
    assert caching(tmp_path, num_pairs=2).todo == [0, 5]
    caching(tmp_path, num_pairs=2).run()
    assert caching(tmp_path).todo == [1, 2, 3, 4]
    for wrong in (0, 7):
        with pytest.raises(ValueError, match=r"num_pairs must lie in 1\.\.6"):
            caching(tmp_path, num_pairs=wrong)


def test_a_broken_sweep_is_skipped_named_and_no_reason_to_refuse_the_cache(tmp_path, capsys):
    pairs, job = Log(broken=2), caching(tmp_path, Log(broken=2))
    assert "5 pairs in" in job.run()
    assert f"skipped {pairs.keys[2]}: sweep 2 is truncated" in capsys.readouterr().out
    assert json.loads((job.cache.directory / "faults.json").read_text()) == {pairs.keys[2]: "sweep 2 is truncated"}
    assert caching(tmp_path, Log(broken=2)).todo == []
    check_teacher(PrecomputedFlow(job.cache.directory), pairs)
    with pytest.raises(TooManyFaultsError):
        caching(tmp_path / "b", Log(broken=2), faults=FaultBudget(0.01, 1)).run()


class Broken:
    name, from_labels, settings = "broken", False, {}

    def __call__(self, batch: SweepPairBatch) -> FlowField:
        raise ValueError("no clusters to speak of")


def test_what_stops_it_is_told_in_one_line(tmp_path):
    job = caching(tmp_path, flow=Broken())
    with pytest.raises(CachingError, match=r"log/0/0->log/0/1: no clusters to speak of"):
        job.run()
    with pytest.raises(CachingError, match="no clusters"):
        job.estimate()


def test_folders_and_datasets_of_another_kind_are_refused(tmp_path):
    caching(tmp_path, output=tmp_path / "a").run()
    with pytest.raises(ValueError, match="choose another folder"):
        caching(tmp_path, flow=RigidFlow(), output=tmp_path / "a")
    with pytest.raises(ValueError, match="choose another folder"):
        caching(tmp_path, Log(num=5), output=tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").touch()
    with pytest.raises(ValueError, match="no flow cache; choose another folder"):
        caching(tmp_path, output=tmp_path / "b")
    with pytest.raises(ValueError, match="yields no pairs of sweeps"):
        caching(tmp_path, Labelled())
    with pytest.raises(ValueError, match="num_workers must be at least 1"):
        caching(tmp_path, num_workers=0)
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda"):
        device_of("tpu")
