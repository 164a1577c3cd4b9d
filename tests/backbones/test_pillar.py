import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.backbones import PillarEncoder
from equilidar.ops.voxelize import HardVoxels, voxelize_hard
from equilidar.structures import GridSpec, PointCloudBatch
from equilidar.structures.offsets import from_lengths
from equilidar.sync_watch import watch_syncs

GRID = GridSpec((0.0, -3.2, -3.0), (4.8, 3.2, 1.0), (0.16, 0.16, 4.0))


def cloud(lengths: list[int], seed: int = 0, channels: tuple[str, ...] = ("intensity",)) -> PointCloudBatch:
    """Points of which some are outside of the grid, and so many near one place that they do not fit into its pillar."""
    generator = torch.Generator().manual_seed(seed)
    num = sum(lengths)
    xyz = torch.rand(num, 3, generator=generator) * torch.tensor([6.0, 7.0, 5.0]) - torch.tensor([0.5, 3.5, 3.5])
    crowd = torch.rand(num, generator=generator) < 0.4
    xyz[crowd] = torch.tensor([2.48, 0.24, -1.0]) + 0.07 * torch.randn(int(crowd.sum()), 3, generator=generator)
    features = torch.rand(num, len(channels), generator=generator)
    return PointCloudBatch(xyz, features, from_lengths(lengths), channels)


def encoder(seed: int = 0, **kwargs) -> PillarEncoder:
    torch.manual_seed(seed)
    built = PillarEncoder(GRID, kwargs.pop("in_channels", 4), **kwargs)
    for layer in built.vfe.pfn_layers:
        for name, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            getattr(layer.norm, name).data.uniform_(low, low + 1)
    return built


def by_loop(points: PointCloudBatch, net: PillarEncoder) -> dict[tuple[int, ...], np.ndarray]:
    """Features of each pillar [batch, y, x], point by point in float64, by the running statistics."""
    table = torch.cat([points.xyz, points.features], 1).numpy()
    low, size = np.float32(GRID.low), np.float32(GRID.voxel_size)
    pillars: dict[tuple[int, ...], list[np.ndarray]] = {}
    for item, row in zip(points.batch_index.tolist(), table, strict=True):
        x, y, z = np.floor((row[:3] - low) / size).astype(int)
        if z == 0 and 0 <= y < GRID.shape[1] and 0 <= x < GRID.shape[2]:
            pillars.setdefault((item, int(y), int(x)), []).append(row.astype(np.float64))
    layers = [(layer.linear.weight.detach().double().numpy(), layer.norm) for layer in net.vfe.pfn_layers]
    features = {}
    for (item, y, x), rows in pillars.items():
        kept = np.stack(rows[: net.max_points])
        center = [GRID.low[0] + (x + 0.5) * 0.16, GRID.low[1] + (y + 0.5) * 0.16, GRID.low[2] + 2]
        slots = np.zeros((net.max_points, table.shape[1] + 6))
        slots[: len(kept)] = np.concatenate([kept, kept[:, :3] - kept[:, :3].mean(0), kept[:, :3] - center], 1)
        for i, (weight, norm) in enumerate(layers):
            mean, variance = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
            scaled = (slots @ weight.T - mean) / np.sqrt(variance + 1e-3)
            own = np.maximum(scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy(), 0)
            last = i == len(layers) - 1
            slots = own if last else np.concatenate([own, np.broadcast_to(own.max(0), own.shape)], 1)
        features[item, y, x] = slots.max(0)
    return features


@pytest.mark.parametrize(
    ("channels", "names"),
    [((64,), ("intensity",)), ((16, 24), ("intensity",)), ((64,), ("intensity", "time")), ((8,), ())],
    ids=["kitti", "two layers", "several sweeps", "coordinates alone"],
)
def test_features_are_those_of_a_loop_over_points(channels, names) -> None:
    net = encoder(channels=channels, in_channels=3 + len(names)).eval()
    points = cloud([700, 0, 300], channels=names)
    with torch.no_grad():
        pillars = net.encode(points).last
    expected = by_loop(points, net)
    assert [(b, y, x) for b, _, y, x in pillars.coords.tolist()] == sorted(expected)
    crowded = voxelize_hard(points, GRID, 1000, 40_000).num_points
    assert (crowded > net.max_points).any() and (crowded < net.max_points).any()
    stacked = np.stack([expected[key] for key in sorted(expected)])
    np.testing.assert_allclose(pillars.features, stacked, rtol=1e-4, atol=1e-5)


def test_published_sizes_are_those_of_the_map() -> None:
    net = encoder(channels=(8, 12)).eval()
    info, features = net.feature_info, net.encode(cloud([300, 0]))
    assert list(features.stages) == list(info.channels) == list(info.strides) == ["pillars"]
    assert (
        features.last.stride == info.strides["pillars"] and features.last.features.shape[1] == info.channels["pillars"]
    )
    bev = features.bev_map()
    assert bev.features.shape == (2, info.bev_channels, *info.bev_shape) and bev.stride == info.bev_stride
    assert bev.features[1].abs().sum() == 0


def test_the_map_is_openpcdets_scatter() -> None:
    net = encoder().eval()
    features = net.encode(cloud([400]))
    _, height, width = GRID.shape
    flat = torch.zeros(64, height * width)
    coords = features.last.coords.long()
    flat[:, coords[:, 1] + coords[:, 2] * width + coords[:, 3]] = features.last.features.T
    assert torch.equal(features.bev_map().features[0], flat.view(64, height, width))


def test_statistics_count_unused_slots() -> None:
    """As where one row of zeros stands for each unused slot."""
    net = encoder(channels=(6,)).train()
    points = cloud([200])
    pillars = net.pillars(points)
    slots: list[torch.Tensor] = []
    net.vfe.pfn_layers[0].linear.register_forward_hook(lambda _, inputs, output: slots.append(output.detach()))
    norm = net.vfe.pfn_layers[0].norm
    norm.reset_running_stats()
    norm.momentum = 1.0
    net(pillars)
    used = torch.arange(net.max_points) < pillars.num_points[:, None]
    rows = slots[0][used]
    num = used.numel()
    mean = rows.sum(0) / num
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(
        norm.running_var, (rows.square().sum(0) - num * mean**2) / (num - 1), rtol=1e-4, atol=1e-6
    )


def test_a_sweep_keeps_more_pillars_in_eval_mode() -> None:
    net = encoder(max_pillars_train=7, max_pillars=11)
    points = cloud([300, 300])
    for training, most in ((True, 7), (False, 11)):
        pillars = net.train(training).pillars(points)
        assert torch.bincount(pillars.coords[:, 0]).tolist() == [most, most]
        unsorted = voxelize_hard(points, GRID, 32, most)
        assert {tuple(row) for row in pillars.coords.tolist()} == {tuple(row) for row in unsorted.coords.tolist()}


@given(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_offsets_move_with_the_scene_by_whole_cells(shift, seed) -> None:
    """With no weight on absolute x and y, points moved by whole cells give the same features, as many cells on."""
    net = encoder(seed).eval()
    net.vfe.pfn_layers[0].linear.weight.data[:, :2] = 0
    pillars = net.pillars(cloud([200], seed))
    y, x = pillars.coords[:, 2], pillars.coords[:, 3]
    rows = (y >= 4) & (y < 36) & (x >= 4) & (x < 26)
    points, coords = pillars.points[rows], pillars.coords[rows]
    step = torch.tensor([0.16 * shift[1], 0.16 * shift[0], 0])
    moved = points.clone()
    used = torch.arange(net.max_points) < pillars.num_points[rows, None]
    moved[..., :3] += torch.where(used[..., None], step, torch.zeros(3))
    moved_coords = coords + torch.tensor([0, 0, *shift], dtype=torch.int32)
    here, there = (
        net(HardVoxels(where, what, pillars.num_points[rows], GRID, 1)).bev_map().features
        for where, what in ((coords, points), (moved_coords, moved))
    )
    torch.testing.assert_close(there, here.roll(shift, (2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_empty_sweeps(training) -> None:
    net = encoder().train(training)
    features = net.encode(cloud([0, 0]))
    assert features.bev_map().features.shape == (2, 64, 40, 30) and len(features.last.coords) == 0
    features.bev_map().features.sum().backward()
    assert all(value.float().isfinite().all() for value in net.state_dict().values())
    assert all(parameter.grad is not None and (parameter.grad == 0).all() for parameter in net.parameters())


def test_gradients_reach_every_parameter() -> None:
    net = encoder(channels=(8, 12)).train()
    net.encode(cloud([600])).last.features.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_the_host_waits_for_the_number_of_pillars_alone() -> None:
    net, points = encoder().train(), cloud([300, 100])
    with watch_syncs() as found:
        net.encode(points).bev_map().features.sum().backward()
    assert [str(sync) for sync in found] == []


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"z holds 40 voxels of 0.1 m, not one: make voxel_size 4 m along z"):
        PillarEncoder(GridSpec.from_range([0, -1, -3, 1, 1, 1], [0.1, 0.1, 0.1]), 4)
    with pytest.raises(ValueError, match=r"all but the last even, got \[3, 4\]"):
        PillarEncoder(GRID, 4, channels=(3, 4))
    with pytest.raises(ValueError, match="in_channels must be at least 3"):
        PillarEncoder(GRID, 2)
    with pytest.raises(ValueError, match="max_points, max_pillars_train and max_pillars must be at least 1, got 0"):
        PillarEncoder(GRID, 4, max_points=0)
    with pytest.raises(ValueError, match="points have 5 columns, the backbone takes in_channels=4"):
        encoder().encode(cloud([10], channels=("intensity", "time")))
    other = voxelize_hard(cloud([10]), GridSpec((0.0, -3.2, -3.0), (4.8, 3.2, 1.0), (0.32, 0.32, 4.0)), 32, 100)
    with pytest.raises(ValueError, match="given to a backbone for"):
        encoder()(other)
