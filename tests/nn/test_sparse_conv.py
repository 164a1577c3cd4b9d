"""The layers: caching, shapes, engines. Values against dense convolution are in tests/ops/test_sparse_conv.py."""

import math

import pytest
import torch

from equilidar.nn import InverseConv3d, SparseBlock, SparseConv3d, SubmanifoldConv3d
from equilidar.ops.sparse_engine_spconv import has_cuda, import_error
from equilidar.structures import GridSpec, SparseVoxels
from tests.ops.dense_oracle import random_coords

GRID = GridSpec((0.0, 0.0, 0.0), (12.0, 10.0, 8.0), (1.0, 1.0, 1.0))
needs_spconv = pytest.mark.skipif(import_error() is not None, reason=f"spconv: {import_error()}")


def voxels_of(counts: list[int], channels: int = 4, seed: int = 0, *, shuffled: bool = False) -> SparseVoxels:
    coords = random_coords(GRID.shape, counts, seed, shuffled=shuffled)
    features = torch.randn(len(coords), channels, generator=torch.Generator().manual_seed(seed))
    return SparseVoxels(coords, features, GRID, GRID.shape, (1, 1, 1), len(counts))


@pytest.fixture
def spconv_backward(monkeypatch):
    """The CPU build asks for a CUDA stream in its backward pass, and uses it for nothing."""
    import spconv.pytorch.ops

    monkeypatch.setattr(spconv.pytorch.ops, "get_current_stream", lambda: 0)
    assert torch.get_num_threads() == 1


def test_layers_of_a_stage_share_one_rulebook():
    voxels = voxels_of([60, 0, 20])
    first = SubmanifoldConv3d(4, 8)(voxels)
    assert list(voxels.rulebooks) == [("submanifold", (3, 3, 3))]
    rulebook = voxels.rulebooks["submanifold", (3, 3, 3)]
    second = SubmanifoldConv3d(8, 8)(first)
    assert second.rulebooks is voxels.rulebooks and second.coords is voxels.coords
    assert voxels.rulebooks["submanifold", (3, 3, 3)] is rulebook
    assert SparseConv3d(4, 8, 3, 2, 1)(voxels).rulebooks is SparseConv3d(4, 8, 3, 2, 1)(voxels).rulebooks
    assert SparseConv3d(4, 8, 3, 2, (0, 1, 1))(voxels).shape == (3, 5, 6)


def test_strides_and_shapes_multiply():
    voxels = voxels_of([60])
    once = SparseConv3d(4, 4, 3, 2, 1)(voxels)
    twice = SparseConv3d(4, 4, (3, 1, 1), (2, 1, 1))(once)
    assert (once.shape, once.stride) == ((4, 5, 6), (2, 2, 2))
    assert (twice.shape, twice.stride) == ((1, 5, 6), (4, 2, 2))


def test_inverse_returns_to_the_coords_it_is_given():
    voxels = voxels_of([60, 0, 20], shuffled=True)
    coarse = SparseConv3d(4, 8, 3, 2, 1)(voxels)
    fine = InverseConv3d(8, 4, 3, 2, 1)(coarse, voxels)
    assert torch.equal(fine.coords, voxels.coords) and fine.stride == (1, 1, 1) and fine.features.shape == (80, 4)
    with pytest.raises(ValueError, match="does not lead from"):
        InverseConv3d(8, 4, 3, 2, 1)(coarse, coarse)


@pytest.mark.parametrize("counts", [[0], [0, 0], [1], [5, 0]], ids=str)
def test_few_or_no_voxels(counts):
    voxels = voxels_of(counts)
    block = torch.nn.Sequential(SparseBlock(SubmanifoldConv3d(4, 8)), SparseBlock(SparseConv3d(8, 8, 3, 2, 1)))
    out = block(voxels)
    assert out.features.shape[1] == 8 and out.batch_size == len(counts) and bool(out.features.isfinite().all())
    assert (len(out.coords) == 0) == (sum(counts) == 0)
    out.features.sum().backward()
    assert block[0][0].weight.grad.isfinite().all()


def test_items_do_not_see_one_another():
    """A batch is its items: the same features whether they are convolved together or alone."""
    both = voxels_of([40, 30])
    layers = [SparseConv3d(4, 6, 3, 2, 1, bias=True), SubmanifoldConv3d(4, 6, bias=True)]
    for layer in layers:
        joint = layer(both)
        for item in range(2):
            rows = both.batch_index == item
            coords = both.coords[rows].clone()
            coords[:, 0] = 0
            single = layer(SparseVoxels(coords, both.features[rows], GRID, GRID.shape, (1, 1, 1), 1))
            torch.testing.assert_close(joint.features[joint.batch_index == item], single.features)


def test_initialisation_is_uniform_within_the_fan_in():
    layer = SubmanifoldConv3d(16, 32, bias=True)
    bound = 1 / math.sqrt(16 * 27)
    assert layer.bias is not None
    for values in (layer.weight, layer.bias):
        assert values.abs().max() <= bound
    assert layer.weight.abs().max() > 0.99 * bound
    torch.testing.assert_close(layer.weight.std().item(), bound / math.sqrt(3), rtol=0.02, atol=0)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="engine must be one of"):
        SubmanifoldConv3d(4, 4, engine="cuda")
    with pytest.raises(ValueError, match="odd"):
        SubmanifoldConv3d(4, 4, 2)
    with pytest.raises(ValueError, match="kernel_size"):
        SparseConv3d(4, 4, (3, 3))
    with pytest.raises(ValueError, match="voxels have 4 channels"):
        SubmanifoldConv3d(5, 4)(voxels_of([3]))


def test_auto_is_the_reference_on_cpu(monkeypatch):
    def never(*_):
        raise AssertionError("engine=auto ran spconv on CPU")

    monkeypatch.setattr("equilidar.ops.sparse_engine_spconv.convolve", never)
    voxels = voxels_of([20])
    auto, reference = SubmanifoldConv3d(4, 4), SubmanifoldConv3d(4, 4, engine="reference")
    reference.load_state_dict(auto.state_dict())
    assert torch.equal(auto(voxels).features, reference(voxels).features)


@needs_spconv
def test_spconv_on_cpu_with_threads_is_refused(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ValueError, match=r"wrong rows with more than one thread.*set_num_threads\(1\)"):
        SubmanifoldConv3d(4, 4, engine="spconv")(voxels_of([20]))


def test_absent_spconv_is_named(monkeypatch):
    monkeypatch.setattr("equilidar.ops.sparse_engine_spconv.import_error", lambda: "ModuleNotFoundError: spconv")
    with pytest.raises(ValueError, match=r"cannot be imported.*engine=auto"):
        SubmanifoldConv3d(4, 4, engine="spconv")(voxels_of([20]))


@pytest.mark.skipif(has_cuda(), reason="this spconv is built for CUDA")
def test_cpu_build_of_spconv_is_not_taken_for_cuda():
    assert not has_cuda()


LAYERS = {
    "submanifold": lambda engine: SubmanifoldConv3d(4, 6, engine=engine),
    "submanifold (3, 1, 1)": lambda engine: SubmanifoldConv3d(4, 6, (3, 1, 1), engine=engine),
    "kernel 1": lambda engine: SubmanifoldConv3d(4, 6, 1, engine=engine),
    "strided": lambda engine: SparseConv3d(4, 6, 3, 2, 1, engine=engine),
    "strided, padding (0, 1, 1)": lambda engine: SparseConv3d(4, 6, 3, 2, (0, 1, 1), engine=engine),
    "(3, 1, 1), no padding": lambda engine: SparseConv3d(4, 6, (3, 1, 1), (2, 1, 1), engine=engine),
    "strided with bias": lambda engine: SparseConv3d(4, 6, 3, 2, 1, bias=True, engine=engine),
}


@needs_spconv
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("counts", [[150, 0, 90], [0]], ids=str)
def test_spconv_agrees(make, counts, spconv_backward):
    results = []
    torch.manual_seed(0)
    weights = make("reference").state_dict()
    for engine in ("reference", "spconv"):
        layer = make(engine)
        layer.load_state_dict(weights)
        voxels = voxels_of(counts, shuffled=True)
        voxels.features.requires_grad_()
        # Twice: the second pass finds its tables cached.
        for _ in range(2):
            layer.zero_grad()
            voxels.features.grad = None
            out = layer(voxels)
            (out.features**2).sum().backward()
        gradients = [voxels.features.grad, *(parameter.grad for parameter in layer.parameters())]
        results.append((out.coords, out.features.detach(), *gradients))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@needs_spconv
def test_spconv_inverse_agrees(spconv_backward):
    results = []
    torch.manual_seed(0)
    weights = [layer.state_dict() for layer in (SparseConv3d(4, 6, 3, 2, 1), InverseConv3d(6, 5, 3, 2, 1))]
    for engine in ("reference", "spconv"):
        down = SparseConv3d(4, 6, 3, 2, 1, engine=engine)
        up = InverseConv3d(6, 5, 3, 2, 1, engine=engine)
        down.load_state_dict(weights[0])
        up.load_state_dict(weights[1])
        voxels = voxels_of([150, 0, 90], shuffled=True)
        voxels.features.requires_grad_()
        out = up(down(voxels), voxels)
        (out.features**2).sum().backward()
        results.append((out.coords, out.features.detach(), voxels.features.grad, down.weight.grad, up.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
