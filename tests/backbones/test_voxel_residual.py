import pytest
import torch
from torch import nn

from equilidar.backbones import Backbone, VoxelBackBone8x, VoxelResBackBone8x
from equilidar.checkpoint import load_backbone, load_openpcdet_state, read_backbone, save_backbone, to_openpcdet_state
from equilidar.checkpoint.identity import content_hash
from equilidar.nn import SparseResidualBlock
from equilidar.ops.sparse_engine_spconv import import_error
from equilidar.ops.voxelize import voxelize_mean
from equilidar.structures import GridSpec, SensorContract, SparseVoxels

from .test_voxel_plain import GRID, STAGES, cloud

CONTRACT = SensorContract(("intensity",), (255.0,), "sensor")


def small(seed: int = 0, **kwargs) -> VoxelResBackBone8x:
    torch.manual_seed(seed)
    return VoxelResBackBone8x(GRID, 4, **({"width": 0.25} | kwargs))


def test_sizes_are_those_of_centerpoint_on_nuscenes():
    grid = GridSpec.from_range([-54, -54, -5, 54, 54, 3], [0.075, 0.075, 0.2])
    backbone = VoxelResBackBone8x(grid, 5)
    info = backbone.feature_info
    assert isinstance(backbone, Backbone)
    assert info.channels == {"conv1": 16, "conv2": 32, "conv3": 64, "conv4": 128, "out": 128}
    assert (info.bev_channels, info.bev_shape, info.bev_stride) == (256, (180, 180), (8, 8))


def test_output_is_what_feature_info_says():
    backbone = small()
    features = backbone.encode(cloud([400, 0, 200]))
    info = backbone.feature_info
    assert list(features.stages) == list(info.channels) == STAGES
    for name, voxels in features.stages.items():
        assert voxels.features.shape[1] == info.channels[name] and voxels.stride == info.strides[name]
    assert features.bev_map().features.shape == (3, info.bev_channels, *info.bev_shape)


def test_biases_normalisation_and_names_are_openpcdets():
    backbone = VoxelResBackBone8x(GRID, 5)
    state = backbone.state_dict()
    biased = {
        name
        for name in state
        if name.endswith("bias") and ".bn" not in name and state[name.replace("bias", "weight")].dim() == 5
    }
    stages = {"conv1": (0, 1), "conv2": (1, 2), "conv3": (1, 2), "conv4": (1, 2)}
    assert biased == {f"{s}.{i}.conv{n}.bias" for s, blocks in stages.items() for i in blocks for n in (1, 2)}
    # 5 convolutions with normalisation and 16 with bias and normalisation.
    assert len(state) == 5 * 6 + 16 * 7
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm1d):
            assert (module.eps, module.momentum) == (1e-3, 0.01)
    assert state["conv4.2.bn2.running_var"].shape == (128,)
    assert state["conv_out.0.weight"].shape == (128, 3, 1, 1, 128)


def test_a_residual_block_adds_what_it_was_given():
    """With the second normalisation at zero, what comes out is the rectified input."""
    block = SparseResidualBlock(4)
    nn.init.zeros_(block.bn2.weight)
    voxels = voxelize_mean(cloud([300]), GRID)
    torch.testing.assert_close(block(voxels).features, voxels.features.relu())
    nn.init.ones_(block.bn2.weight)
    assert not torch.allclose(block(voxels).features, voxels.features.relu())


@pytest.mark.parametrize("training", [True, False])
def test_empty_sweeps(training):
    backbone = small().train(training)
    features = backbone.encode(cloud([0, 0]))
    assert features.bev_map().features.shape == (2, 64, 16, 12)
    assert all(bool(value.float().isfinite().all()) for value in backbone.state_dict().values())


@pytest.mark.parametrize("shift", [(1, -1), (-2, 2)])
def test_moves_with_the_scene_by_whole_output_strides(shift):
    """A block reaches farther than those of the plain encoder: only rows that no border reaches are compared."""
    backbone = small().eval()
    voxels = voxelize_mean(cloud([400], 3), GRID)
    y, x = voxels.coords[:, 2], voxels.coords[:, 3]
    rows = (y >= 40) & (y < 88) & (x >= 40) & (x < 56)
    coords, features = voxels.coords[rows], voxels.features[rows]
    moved = coords + torch.tensor([0, 0, 8 * shift[0], 8 * shift[1]], dtype=torch.int32)
    here, there = (backbone(SparseVoxels(at, features, GRID, GRID.shape, (1, 1, 1), 1)) for at in (coords, moved))
    expected = here.bev_map().features.roll(shift, (2, 3))
    torch.testing.assert_close(there.bev_map().features, expected, rtol=1e-4, atol=1e-5)
    assert expected.abs().sum() > 0


def test_gradients_reach_every_parameter():
    """All but the biases before a normalisation, which takes them away again."""
    backbone = small()
    backbone.encode(cloud([600])).last.features.square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if name.split(".")[-2:] not in (["conv1", "bias"], ["conv2", "bias"]):
            assert parameter.grad.abs().sum() > 0, name


def test_saved_it_loads_into_its_like_alone(tmp_path):
    path = tmp_path / "backbone.safetensors"
    save_backbone(path, small(1), CONTRACT, {})
    identity = read_backbone(path).identity
    assert identity.backbone == "equilidar.VoxelResBackBone8x" and identity.arguments["channels"] == [
        4,
        4,
        8,
        16,
        32,
        32,
    ]
    other = small(2)
    assert load_backbone(path, other, CONTRACT).coverage == 1
    assert content_hash(other.state_dict()) == content_hash(small(1).state_dict())
    with pytest.raises(ValueError, match=r"backbone: file .*VoxelResBackBone8x.*VoxelBackBone8x"):
        load_backbone(path, VoxelBackBone8x(GRID, 4, width=0.25), CONTRACT)


def test_openpcdets_names_lead_back_and_forth():
    source, target = small(1), small(2)
    report = load_openpcdet_state(target, to_openpcdet_state(source))
    assert report.coverage == 1 and content_hash(target.state_dict()) == content_hash(source.state_dict())


def test_unequal_first_channels_and_odd_grids_are_refused():
    with pytest.raises(ValueError, match="channels of conv_input and conv1 must be equal"):
        VoxelResBackBone8x(GRID, 4, channels=[8, 16, 32, 64, 128, 128])
    with pytest.raises(ValueError, match="grid does not fit VoxelResBackBone8x: x holds 100 voxels"):
        VoxelResBackBone8x(GridSpec.from_range([0, 0, -3, 10, 6.4, 1], [0.1, 0.1, 0.1]), 4)


@pytest.mark.skipif(import_error() is not None, reason=f"spconv: {import_error()}")
def test_spconv_agrees_on_the_whole_backbone():
    """Its CPU build refuses a bias, which is added here."""
    points = cloud([1500, 0, 1000])
    ours, theirs = (small(engine=engine).eval() for engine in ("reference", "spconv"))
    with torch.no_grad():
        expected, found = ours.encode(points), theirs.encode(points)
    for name in STAGES:
        assert torch.equal(found.stages[name].coords, expected.stages[name].coords)
        torch.testing.assert_close(found.stages[name].features, expected.stages[name].features, rtol=1e-3, atol=1e-4)
