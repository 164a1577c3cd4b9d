"""The flow network: file, protocol, and that it learns what its teacher says."""

import math

import pytest
import safetensors.torch
import torch

from equilidar.flow import ExactFlow, FeedforwardFlow, RigidFlow, check_label_free
from equilidar.flow.feedforward import FlowNetworkOrigin, save_flow_network
from equilidar.flow.flow_network import FlowNetwork
from equilidar.flow.flow_pillars import FlowNetworkShape, pillars_of
from equilidar.flow_runs.distilling import Distillation
from equilidar.flow_runs.lessons import example_of, lesson_of
from equilidar.structures import PointCloudBatch, SweepPairBatch

from .pairs import grid_points, moved, rigid_matrix, sweep_pair

SHAPE = FlowNetworkShape(extent=12.8, cell=0.4, layers=4, width=8, reach=1.6)
LABEL_FREE = FlowNetworkOrigin("nearest", False, {})


def traffic(seed: int) -> SweepPairBatch:
    """Ground, posts that rest, and two boxes of which one drives by one metre along +x; the sensor drives, too."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    ground = torch.cat([22 * rand(1500, 2) - 11, torch.full((1500, 1), -1.7)], 1)
    posts = torch.cat([(20 * rand(8, 2) - 10).repeat_interleave(30, 0), 3 * rand(240, 1) - 1.5], 1)
    box = rand(400, 3) * torch.tensor([4.0, 1.8, 1.5])
    still, driving = (box + torch.tensor([x, y, -1.4]) for x, y in ((-8.0, -7.0), (float(rand(1)) * 4 - 4, 4.0)))
    source = torch.cat([ground, posts, still, driving])
    own = torch.zeros_like(source)
    own[-400:, 0] = 1.0
    motion = rigid_matrix(0.02, (-0.8, 0.0, 0.0))
    target = moved(source + own, motion)
    return SweepPairBatch.collate([sweep_pair(source, target, motion, f"t/{seed}", flow=target - source)])


@pytest.fixture(scope="module")
def network() -> FlowNetwork:
    examples = [example_of(traffic(seed), ExactFlow()) for seed in range(8)]
    return Distillation(steps=120, batch_size=2, lr=1e-2)(SHAPE, examples, torch.device("cpu"))


def test_it_comes_close_to_its_teacher_on_pairs_that_it_never_saw(network, tmp_path):
    save_flow_network(tmp_path / "n.safetensors", network, LABEL_FREE)
    refined, alone = (FeedforwardFlow(tmp_path / "n.safetensors", **options) for options in ({}, {"refine": None}))
    assert refined.settings != alone.settings
    for seed in (100, 101, 102):
        batch = traffic(seed)
        assert batch.flow is not None
        rigid = RigidFlow()(batch).flow
        for flow, moving_bound in ((refined, 0.1), (alone, 0.4)):
            field = flow(batch)
            error = (field.flow - batch.flow).norm(dim=1)
            assert error[-400:].mean() < moving_bound, "the teacher knows; the ego motion alone is off by one metre"
            assert error[:-400].mean() < 0.05
            assert (field.flow[:1500] - rigid[:1500]).abs().max() < 1.6 and field.valid.all()
            assert ((field.confidence >= 0) & (field.confidence <= 1)).all()
        assert refined(batch).flow.equal(refined(batch).flow)


def test_a_file_gives_back_the_network_and_says_what_it_is_from(network, tmp_path):
    path = tmp_path / "n.safetensors"
    save_flow_network(path, network, FlowNetworkOrigin("exact", True, {"data": {"hash": "aa"}}))
    flow = FeedforwardFlow(path)
    assert flow.from_labels and flow.origin.teacher == "exact" and flow.origin.provenance["data"]["hash"] == "aa"
    with pytest.raises(ValueError, match="flow=feedforward is derived from labels"):
        check_label_free(flow)
    check_label_free(FeedforwardFlow(path, allow_labels=True))
    for name, value in network.state_dict().items():
        assert flow.network.state_dict()[name].equal(value)
    assert not any(p.requires_grad for p in flow.network.parameters()) and not flow.network.training
    other = FlowNetwork(SHAPE)
    save_flow_network(tmp_path / "o.safetensors", other, LABEL_FREE)
    assert FeedforwardFlow(tmp_path / "o.safetensors").settings["weights"] != flow.settings["weights"]


def test_files_that_are_none_are_refused(network, tmp_path):
    path = tmp_path / "n.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no flow network .*distill\.py"):
        FeedforwardFlow(path)
    save_flow_network(path, network, LABEL_FREE)
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(ValueError, match="is no flow network"):
        FeedforwardFlow(path)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="not those that were saved"):
        FeedforwardFlow(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="its format is None"):
        FeedforwardFlow(path)
    with pytest.raises(ValueError, match=r"flow\.threshold must lie between 0 and 1"):
        FeedforwardFlow(path, threshold=1.0)
    broken = FlowNetwork(SHAPE)
    broken.head[0].bias.data[0] = math.nan
    with pytest.raises(ValueError, match=r"head\.0\.bias is not finite"):
        save_flow_network(path, broken, LABEL_FREE)


def test_the_answer_does_not_depend_on_the_batch_and_empty_sweeps_are_no_error(network, tmp_path):
    save_flow_network(tmp_path / "n.safetensors", network, LABEL_FREE)
    flow = FeedforwardFlow(tmp_path / "n.safetensors")
    none, some, eye = torch.zeros(0, 3), grid_points(2, 1.0), torch.eye(4, dtype=torch.float64)
    single = traffic(3)
    pair = sweep_pair(single.source.xyz, single.target.xyz, single.target_T_source.matrix()[0].double())
    pairs = [sweep_pair(none, some, eye), pair, sweep_pair(some, none, eye), sweep_pair(none, none, eye)]
    batch = SweepPairBatch.collate(pairs)
    field, alone = flow(batch), flow(single)
    torch.testing.assert_close(field.flow[: len(alone.flow)], alone.flow, atol=1e-4, rtol=0)
    assert len(field.flow) == len(alone.flow) + 8 and field.flow.isfinite().all()
    assert flow(SweepPairBatch.collate([pairs[3]])).flow.shape == (0, 3)
    far = sweep_pair(some + 100, some + 100, eye)
    assert not flow(SweepPairBatch.collate([far])).valid.any()


def test_pillars_leave_out_the_ground_and_keep_the_sweeps_apart():
    batch = traffic(0)
    there = batch.target_T_source.apply(batch.source.xyz, batch.source.offsets)
    source = PointCloudBatch(there, batch.source.features, batch.source.offsets, batch.source.channels)
    pair = pillars_of(source, batch.target, SHAPE)
    assert (pair.rows[:1500] == -1).float().mean() > 0.95 and (pair.rows[-400:] >= 0).float().mean() > 0.9
    pillars = pair.pillars
    assert (pillars.batch_size, pair.num_items) == (2, 1)
    assert (pillars.coords[pair.rows[pair.rows >= 0], 0] == 0).all()
    assert (pillars.coords[pair.target_rows[pair.target_rows >= 0], 0] == 1).all()
    here, there = pair.rows[1500:1740], pair.target_rows[1500:1740]
    alike = (pillars.features[here] - pillars.features[there]).abs().amax(1)[(here >= 0) & (there >= 0)]
    assert alike.median() < 0.01, "posts look the same in both sweeps after the ego motion"
    with pytest.raises(ValueError, match="whole multiple of 16 cells"):
        FlowNetworkShape(extent=10.0, cell=0.3)
    with pytest.raises(ValueError, match="reach must lie between"):
        FlowNetworkShape(reach=0.1)


def test_lessons_turn_both_sweeps_and_the_flow_alike():
    example = example_of(traffic(0), ExactFlow())
    lesson = lesson_of([example] * 3, torch.tensor([1, 2, 3]))
    num = len(example.source)
    for item in range(3):
        rows = slice(item * num, (item + 1) * num)
        moved_points = lesson.source.xyz[rows] + lesson.residual[rows]
        torch.testing.assert_close(moved_points, lesson.target.xyz[rows], atol=1e-4, rtol=0)
        torch.testing.assert_close(lesson.source.xyz[rows].norm(dim=1), example.source.norm(dim=1), atol=1e-4, rtol=0)
    assert not lesson.source.xyz[:num].allclose(lesson.source.xyz[num : 2 * num])
    assert int(lesson.moves[:num].sum()) == 400
