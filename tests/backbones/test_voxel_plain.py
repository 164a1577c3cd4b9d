import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.backbones import VoxelBackBone8x
from equilidar.ops.sparse_engine_spconv import import_error
from equilidar.ops.voxelize import voxelize_mean
from equilidar.structures import GridSpec, PointCloudBatch, SparseVoxels
from equilidar.structures.offsets import from_lengths

GRID = GridSpec((0.0, -6.4, -3.0), (9.6, 6.4, 1.0), (0.1, 0.1, 0.1))
STAGES = ["conv1", "conv2", "conv3", "conv4", "out"]


def cloud(lengths: list[int], seed: int = 0, grid: GridSpec = GRID) -> PointCloudBatch:
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(grid.low), torch.tensor(grid.high)
    xyz = low + torch.rand(sum(lengths), 3, generator=generator) * (high - low)
    # A thin layer, so that voxels have neighbours.
    xyz[:, 2] = -1.0 + 0.2 * torch.rand(len(xyz), generator=generator)
    return PointCloudBatch(xyz, torch.rand(len(xyz), 1, generator=generator), from_lengths(lengths), ("intensity",))


def small(seed: int = 0, grid: GridSpec = GRID, **kwargs) -> VoxelBackBone8x:
    torch.manual_seed(seed)
    return VoxelBackBone8x(grid, 4, width=0.25, **kwargs)


def test_sizes_are_those_of_second_on_kitti():
    grid = GridSpec.from_range([0, -40, -3, 70.4, 40, 1], [0.05, 0.05, 0.1])
    backbone = VoxelBackBone8x(grid, 4)
    info = backbone.feature_info
    assert info.channels == {"conv1": 16, "conv2": 32, "conv3": 64, "conv4": 64, "out": 128}
    assert info.strides["conv4"] == (8, 8, 8) and info.strides["out"] == (16, 8, 8)
    assert (info.bev_channels, info.bev_shape, info.bev_stride) == (256, (200, 176), (8, 8))
    features = backbone.encode(cloud([500], grid=grid))
    assert [stage.shape[0] for stage in features.stages.values()] == [41, 21, 11, 5, 2]


def test_output_is_what_feature_info_says():
    backbone = small()
    features = backbone.encode(cloud([400, 0, 200]))
    info = backbone.feature_info
    assert list(features.stages) == list(info.channels) == list(info.strides) == STAGES
    for name, voxels in features.stages.items():
        assert voxels.features.shape[1] == info.channels[name] and voxels.stride == info.strides[name]
        assert voxels.batch_size == 3 and set(voxels.coords[:, 0].tolist()) == {0, 2}
    bev = features.bev_map()
    assert bev.features.shape == (3, info.bev_channels, *info.bev_shape) and bev.stride == info.bev_stride
    assert bev.features[1].abs().sum() == 0


def test_encode_is_voxelize_then_forward():
    backbone, points = small().eval(), cloud([300])
    one, other = backbone.encode(points), backbone(voxelize_mean(points, GRID))
    assert torch.equal(one.last.features, other.last.features)


@pytest.mark.parametrize("training", [True, False])
def test_empty_sweeps(training):
    backbone = small().train(training)
    features = backbone.encode(cloud([0, 0]))
    assert all(len(voxels.coords) == 0 for voxels in features.stages.values())
    assert features.bev_map().features.shape == (2, 64, 16, 12)
    assert bool(torch.stack([value.float().isfinite().all() for value in backbone.state_dict().values()]).all())


def test_items_of_a_batch_are_independent():
    backbone, points = small().eval(), cloud([300, 200], seed=3)
    joint = backbone.encode(points).bev_map().features
    for item, alone in enumerate(points.split()):
        torch.testing.assert_close(joint[item : item + 1], backbone.encode(alone).bev_map().features)


@given(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_moves_with_the_scene_by_whole_output_strides(shift, seed):
    """Features of voxels moved by k * 8 cells are the features moved by k cells, at every stage and in the BEV map."""
    backbone = small(seed).eval()
    voxels = voxelize_mean(cloud([150], seed), GRID)
    # Far enough from the border for the moved voxels, and all that they reach, to stay inside.
    y, x = voxels.coords[:, 2], voxels.coords[:, 3]
    rows = (y >= 40) & (y < 88) & (x >= 40) & (x < 56)
    coords, features = voxels.coords[rows], voxels.features[rows]
    moved_coords = coords + torch.tensor([0, 0, 8 * shift[0], 8 * shift[1]], dtype=torch.int32)

    def encode(coords):
        return backbone(SparseVoxels(coords, features, GRID, GRID.shape, (1, 1, 1), 1))

    here, there = encode(coords), encode(moved_coords)
    for name, voxels_here in here.stages.items():
        step = 8 // voxels_here.stride[1]
        expected = voxels_here.coords + torch.tensor([0, 0, step * shift[0], step * shift[1]], dtype=torch.int32)
        assert torch.equal(there.stages[name].coords, expected), name
        torch.testing.assert_close(there.stages[name].features, voxels_here.features, rtol=1e-4, atol=1e-5)
    moved_map = here.bev_map().features.roll(shift, (2, 3))
    torch.testing.assert_close(there.bev_map().features, moved_map, rtol=1e-4, atol=1e-5)


def test_second_network_on_the_same_voxels_builds_no_rulebook(monkeypatch):
    voxels = voxelize_mean(cloud([300]), GRID)
    first = small(0)(voxels)

    def never(*_):
        raise AssertionError("a rulebook was built again")

    monkeypatch.setattr("equilidar.nn.rulebook_cache.submanifold_rulebook", never)
    monkeypatch.setattr("equilidar.nn.rulebook_cache.strided_rulebook", never)
    second = small(1)(voxels)
    assert torch.equal(first.last.coords, second.last.coords)


def test_gradients_reach_every_parameter_and_are_reproducible():
    gradients = []
    for _ in range(2):
        backbone = small()
        backbone.encode(cloud([600])).last.features.square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters()])
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients[0])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_bfloat16_autocast_is_close_and_keeps_statistics_in_float32():
    points = cloud([2000])
    single, mixed = small(), small()
    expected = single.encode(points).last.features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = mixed.encode(points).last.features
    assert actual.dtype == torch.bfloat16
    error = (actual.float() - expected).norm() / expected.norm()
    assert error < 0.05
    actual.float().square().sum().backward()
    for name, value in mixed.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64), name
        if name.endswith("running_var"):
            torch.testing.assert_close(value, single.state_dict()[name], rtol=0.05, atol=1e-3)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in mixed.parameters())


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (GridSpec.from_range([0, 0, -3, 10, 6.4, 1], [0.1, 0.1, 0.1]), ["x holds 100 voxels", "9.6 or 10.4 m long"]),
        (GridSpec.from_range([0, 0, -3, 6.4, 6, 1], [0.1, 0.1, 0.1]), ["y holds 60 voxels", "5.6 or 6.4 m long"]),
        (
            GridSpec.from_range([0, 0, -3, 6.4, 6.4, 1], [0.1, 0.1, 0.2]),
            ["z holds 20 voxels", "0.1 m along z", "z range 4.8 m"],
        ),
        (GridSpec.from_range([0, 0, -3, 6.4, 6.4, 0.2], [0.1, 0.1, 0.1]), ["z holds 32 voxels"]),
        (
            GridSpec.from_range([0, 0, -3, 5, 5, 0.9], [0.1, 0.1, 0.1]),
            ["x holds 50", "y holds 50", "z holds 39", "z range 4 m"],
        ),
    ],
    ids=["x", "y", "z too few", "z that would lose a level", "all"],
)
def test_grids_that_do_not_fit_say_what_to_change(grid, words):
    with pytest.raises(ValueError, match="grid does not fit VoxelBackBone8x") as error:
        VoxelBackBone8x(grid, 4)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("levels", [24, 40, 56, 72])
def test_every_z_level_of_a_fitting_grid_reaches_the_output(levels):
    grid = GridSpec.from_range([0, 0, 0, 1.6, 1.6, levels * 0.1], [0.1, 0.1, 0.1])
    # One voxel per item, each at another level.
    z = torch.arange(levels)
    coords = torch.stack([z, z, torch.full_like(z, 8), torch.full_like(z, 8)], 1).int()
    voxels = SparseVoxels(coords, torch.ones(levels, 4), grid, grid.shape, (1, 1, 1), levels)
    reached = small(grid=grid)(voxels).last.coords[:, 0]
    assert set(reached.tolist()) == set(range(levels))


def test_wrong_input_is_named():
    backbone = small()
    with pytest.raises(ValueError, match="in_channels=4"):
        backbone(SparseVoxels(torch.zeros(1, 4).int(), torch.zeros(1, 5), GRID, GRID.shape, (1, 1, 1), 1))
    other = GridSpec(GRID.low, (6.4, 6.4, 1.0), GRID.voxel_size)
    with pytest.raises(ValueError, match="given to a backbone for"):
        backbone(voxelize_mean(cloud([5]), other))
    with pytest.raises(ValueError, match="6 positive counts"):
        VoxelBackBone8x(GRID, 4, channels=[16, 32])
    with pytest.raises(ValueError, match="at least 3"):
        VoxelBackBone8x(GRID, 1)


@pytest.mark.skipif(import_error() is not None, reason=f"spconv: {import_error()}")
@pytest.mark.parametrize("training", [True, False])
def test_spconv_agrees_on_the_whole_backbone(training, monkeypatch):
    """SECOND's channels; stages, map, input and parameter gradients."""
    import spconv.pytorch.ops

    monkeypatch.setattr(spconv.pytorch.ops, "get_current_stream", lambda: 0)
    assert torch.get_num_threads() == 1
    points = cloud([1500, 0, 1000])
    runs = {}
    for engine in ("reference", "spconv"):
        torch.manual_seed(0)
        backbone = VoxelBackBone8x(GRID, 4, engine=engine).train(training)
        voxels = voxelize_mean(points, GRID)
        voxels.features.requires_grad_()
        features = backbone(voxels)
        weight = torch.randn(features.last.features.shape, generator=torch.Generator().manual_seed(1))
        (features.last.features * weight).sum().backward()
        runs[engine] = (
            features,
            {"input": voxels.features.grad, **{n: p.grad for n, p in backbone.named_parameters()}},
        )
    (ours, our_grads), (theirs, their_grads) = runs["reference"], runs["spconv"]
    for name in STAGES:
        assert torch.equal(ours.stages[name].coords, theirs.stages[name].coords)
        torch.testing.assert_close(ours.stages[name].features, theirs.stages[name].features, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.bev_map().features, theirs.bev_map().features, rtol=1e-3, atol=1e-4)
    for name, grad in our_grads.items():
        assert grad is not None
        difference = (grad - their_grads[name]).norm() / their_grads[name].norm()
        assert difference < 1e-3, (name, float(difference))
