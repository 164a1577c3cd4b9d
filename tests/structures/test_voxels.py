import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.structures import BackboneFeatures, GridSpec, LossTerms, SparseVoxels

from .strategies import seeds

GRID = GridSpec((0.0, -2.0, -1.0), (4.0, 2.0, 1.0), (0.5, 0.5, 0.5))


@st.composite
def sparse(draw, stride=(1, 1, 1)):
    shape = tuple(cells // step for cells, step in zip(GRID.shape, stride, strict=True))
    batch_size = draw(st.integers(1, 3))
    z, y, x = shape
    total = batch_size * z * y * x
    generator = torch.Generator().manual_seed(draw(seeds))
    keys = torch.randperm(total, generator=generator)[: draw(st.integers(0, 40))]
    coords = torch.stack([keys // (z * y * x), keys // (y * x) % z, keys // x % y, keys % x], 1).int()
    return SparseVoxels(coords, torch.randn(len(keys), 3, generator=generator), GRID, shape, stride, batch_size)


@given(sparse())
def test_dense_holds_each_feature_at_its_cell_and_nothing_else(voxels):
    dense = voxels.dense()
    assert dense.shape == (voxels.batch_size, 3, *voxels.shape)
    for (b, z, y, x), feature in zip(voxels.coords.tolist(), voxels.features, strict=True):
        assert torch.equal(dense[b, :, z, y, x], feature)
    assert int((dense != 0).any(1).sum()) == len(voxels.coords)


@given(sparse())
def test_centers_are_in_their_cells(voxels):
    assert torch.equal(GRID.index_xyz(voxels.centers()).flip(1), voxels.coords[:, 1:].long())
    assert torch.equal(voxels.batch_index, voxels.coords[:, 0].long())


@given(sparse(), sparse((2, 4, 2)))
def test_bev_cells_are_the_dense_map_with_levels_as_channels(first, last):
    features = BackboneFeatures({"conv1": first, "out": last})
    assert features.last is last
    cells, bev = features.bev_cells(), features.bev_map()
    # OpenPCDet's HeightCompression: dense (B, C, Z, Y, X) viewed as (B, C * Z, Y, X).
    assert torch.equal(bev.features, last.dense().flatten(1, 2))
    assert bev.stride == cells.stride == (4, 2) and cells.shape == last.shape[1:]
    assert torch.equal(cells.coords, last.coords[:, [0, 2, 3]].long().unique(dim=0))
    b, y, x = cells.coords.unbind(1)
    assert torch.equal(bev.features[b, :, y, x], cells.features)


@given(sparse())
def test_gradient_comes_back_through_the_bev_map(voxels):
    leaf = voxels.features.clone().requires_grad_()
    bev = BackboneFeatures({"out": voxels.with_features(leaf)}).bev_map()
    bev.features.square().sum().backward()
    torch.testing.assert_close(leaf.grad, 2 * voxels.features)


def one_voxel():
    return SparseVoxels(torch.zeros(1, 4).int(), torch.ones(1, 2), GRID, GRID.shape, (1, 1, 1), 1)


def test_same_coords_share_rulebooks_and_moving_forgets_them():
    voxels = one_voxel()
    sibling = voxels.with_features(torch.zeros(1, 5))
    sibling.rulebooks["submanifold"] = "table"
    assert voxels.rulebooks == {"submanifold": "table"}
    moved = voxels.to("cpu")
    assert moved.rulebooks == {} and voxels.rulebooks != {}
    assert one_voxel().rulebooks == {}, "caches of unrelated voxels are not shared"


def test_to_moves_every_tensor_and_keeps_the_rest():
    """The meta device holds no data: whatever is not moved shows."""
    features = BackboneFeatures({"conv1": one_voxel(), "out": one_voxel()})
    moved = features.to("meta")
    assert [*moved.stages] == ["conv1", "out"]
    for voxels in moved.stages.values():
        assert voxels.coords.is_meta and voxels.features.is_meta
        assert voxels.grid == GRID and voxels.shape == GRID.shape
    assert not features.stages["out"].features.is_meta, "the original stays"


def test_loss_terms_are_weighted_and_differentiable():
    a, b = torch.tensor(2.0, requires_grad=True), torch.tensor(5.0, requires_grad=True)
    total = LossTerms({"a": a, "b": b}, {"a": 0.5, "b": 3.0}).total()
    assert total.item() == 16
    total.backward()
    assert a.grad == 0.5 and b.grad == 3


def test_loss_terms_without_weight_are_refused():
    with pytest.raises(ValueError, match=r"\['a', 'b'\] and weights \['a'\] differ"):
        LossTerms({"a": torch.tensor(1.0), "b": torch.tensor(1.0)}, {"a": 1.0})
