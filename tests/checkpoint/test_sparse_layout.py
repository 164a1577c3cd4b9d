"""Kernels in each layout do what they did where they were trained; a layout that cannot be told is asked for."""

import pytest
import torch

from equilidar.checkpoint.sparse_layout import LAYOUTS, choose_layout, fitting_layouts, from_krsc, layout_named, to_krsc
from equilidar.ops.sparse_engine_spconv import import_error


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 3, 3, 3, 4), (4, 3, 1, 1, 4), (5, 1, 1, 1, 3), (3, 1, 1, 1, 3)])
def test_back_and_forth_is_exact(layout, shape):
    kernel = torch.randn(shape)
    stored = from_krsc(kernel, layout)
    assert torch.equal(to_krsc(stored, layout), kernel)
    out, *cells, inputs = shape
    assert stored.shape == {"krsc": shape, "rsck": (*cells, inputs, out), "rskc": (*cells, out, inputs)}[layout]


def test_layouts_are_those_of_spconv():
    """One number, followed through: output 4 of 5, cell (0, 1, 2), input 1 of 3."""
    kernel = torch.zeros(5, 3, 3, 3, 3)
    kernel[4, 0, 1, 2, 1] = 1
    assert from_krsc(kernel, "rsck")[0, 1, 2, 1, 4] == 1
    assert from_krsc(kernel, "rskc")[0, 1, 2, 4, 1] == 1
    assert [layout_named(name) for name in ("spconv1", "spconv2", "spconv2_native")] == ["rsck", "krsc", "rskc"]


@pytest.mark.skipif(import_error() is not None, reason=f"spconv: {import_error()}")
def test_one_cell_kernels_are_read_as_spconv_reads_them():
    """Spconv multiplies by weight.view(in, out), although the tensor is shaped (out, 1, 1, 1, in)."""
    import spconv.pytorch as spconv

    module = spconv.SubMConv3d(3, 5, 1, bias=False)
    assert module.weight.shape == (5, 1, 1, 1, 3)
    coords = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]], dtype=torch.int32)
    rows = torch.randn(2, 3)
    with torch.no_grad():
        theirs = module(spconv.SparseConvTensor(rows, coords, [4, 4, 4], 1)).features
    ours = to_krsc(module.weight.detach(), "krsc")
    torch.testing.assert_close(rows @ ours.reshape(5, 3).t(), theirs)
    wrong = rows @ module.weight.detach().reshape(5, 3).t()
    assert not torch.allclose(wrong, theirs), "the trap is real"


def stack(layout, *shapes):
    return {str(i): from_krsc(torch.zeros(shape), layout) for i, shape in enumerate(shapes)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_tell_the_layout_where_one_kernel_is_not_square(layout):
    shapes = ((16, 3, 3, 3, 4), (16, 3, 3, 3, 16))
    wanted = {"0": shapes[0], "1": shapes[1]}
    assert choose_layout(stack(layout, *shapes), wanted, None, "file") == layout
    # Other input columns than ours are no obstacle.
    assert choose_layout(stack(layout, *shapes), {**wanted, "0": (16, 3, 3, 3, None)}, None, "file") == layout


def test_square_kernels_are_ambiguous_and_ask_for_a_flag():
    shapes = ((16, 3, 3, 3, 16), (32, 3, 3, 3, 32))
    wanted = {"0": shapes[0], "1": shapes[1]}
    for layout in ("rsck", "rskc"):
        stored = stack(layout, *shapes)
        assert fitting_layouts(stored, wanted) == ["rsck", "rskc"]
        with pytest.raises(ValueError, match=r"fit layout rsck and rskc.*layout=rsck \(spconv 1\.x\)"):
            choose_layout(stored, wanted, None, "file")
        assert choose_layout(stored, wanted, layout, "file") == layout
        with pytest.raises(ValueError, match="not stored as layout=krsc; by their shapes, try rsck or rskc"):
            choose_layout(stored, wanted, "krsc", "file")
    with pytest.raises(ValueError, match="layout must be one of"):
        choose_layout({}, {}, "kcrs", "file")
