import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.ops.rulebook import output_shape, strided_rulebook, submanifold_rulebook
from equilidar.ops.sparse_conv import sparse_conv
from equilidar.testing import assert_op

from .dense_oracle import conv3d, dense_of, random_coords, rows_of
from .implementations import assert_same_bits_with_any_threads

SHAPE = (4, 5, 6)
GEOMETRIES = [
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (0, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0)),
    ((1, 1, 1), (1, 1, 1), (0, 0, 0)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
]


def leaves(num: int, kernel, seed: int, in_channels: int = 3, out_channels: int = 4):
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64).requires_grad_()

    return draw(num, in_channels), draw(out_channels, *kernel, in_channels), draw(out_channels)


def assert_same(actual: torch.Tensor, expected: torch.Tensor, tensors) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)
    weights = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1), dtype=actual.dtype)
    ours = torch.autograd.grad(actual, tensors, weights)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, tensors, weights), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_dense_oracle_moves_impulses_as_documented(axis):
    """A kernel that is 1 at offset k reads input o * stride - padding + k: the oracle before what it judges."""
    tap = [1, 1, 1]
    tap[axis] = 2
    weight = torch.zeros(1, 3, 3, 3, 1)
    weight[0, tap[0], tap[1], tap[2], 0] = 5.0
    coords = torch.tensor([[0, 2, 2, 2]], dtype=torch.int32)
    dense = dense_of(torch.ones(1, 1), coords, (5, 5, 5), 1)
    out = conv3d(dense, weight, (1, 1, 1), (1, 1, 1))
    expected = [2, 2, 2]
    expected[axis] = 1
    assert out.nonzero().tolist() == [[0, 0, *expected]] and out.sum() == 5
    strided = conv3d(dense, weight, (2, 2, 2), (1, 1, 1))
    reads_even_cells = strided.nonzero().tolist()
    # With stride 2 and padding 1, offset 1 reads cell 2 from output 1, offset 2 only odd cells.
    assert reads_even_cells == []
    centered = torch.zeros(1, 3, 3, 3, 1)
    centered[0, 1, 1, 1, 0] = 1.0
    assert conv3d(dense, centered, (2, 2, 2), (1, 1, 1)).nonzero().tolist() == [[0, 0, 1, 1, 1]]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=3), st.integers(0, 99), st.booleans())
@settings(max_examples=25, deadline=None)
def test_submanifold_agrees_with_dense(counts, seed, shuffled):
    coords = random_coords(SHAPE, counts, seed, shuffled=shuffled)
    features, weight, bias = leaves(len(coords), (3, 3, 3), seed)
    ours = sparse_conv(features, weight, submanifold_rulebook(coords, SHAPE, (3, 3, 3)), bias)
    dense = conv3d(dense_of(features, coords, SHAPE, len(counts)), weight, 1, 1)
    assert_same(ours, rows_of(dense, coords) + bias, (features, weight, bias))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("counts", [[30, 0, 17], [1], [120]], ids=str)
def test_strided_agrees_with_dense_everywhere(geometry, counts):
    kernel, stride, padding = geometry
    coords = random_coords(SHAPE, counts, 5)
    features, weight, _ = leaves(len(coords), kernel, 7)
    rulebook, out_coords = strided_rulebook(coords, SHAPE, kernel, stride, padding)
    ours = sparse_conv(features, weight, rulebook)
    dense = conv3d(dense_of(features, coords, SHAPE, len(counts)), weight, stride, padding)
    out_shape = output_shape(SHAPE, kernel, stride, padding)
    assert dense.shape[2:] == out_shape
    # The whole map, cells without output included: they must be zero there.
    assert_same(dense_of(ours, out_coords, out_shape, len(counts)), dense, (features, weight))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_inverse_agrees_with_dense_transpose(geometry):
    kernel, stride, padding = geometry
    coords = random_coords(SHAPE, [30, 0, 17], 5)
    rulebook, out_coords = strided_rulebook(coords, SHAPE, kernel, stride, padding)
    features, weight, bias = leaves(len(out_coords), kernel, 8)
    ours = sparse_conv(features, weight, rulebook.inverted(), bias)
    out_shape = output_shape(SHAPE, kernel, stride, padding)
    # What a strided convolution's size leaves open of its input's.
    extra = [
        n - ((o - 1) * s - 2 * p + k) for n, o, s, p, k in zip(SHAPE, out_shape, stride, padding, kernel, strict=True)
    ]
    dense = torch.nn.functional.conv_transpose3d(
        dense_of(features, out_coords, out_shape, 3),
        weight.permute(4, 0, 1, 2, 3),
        stride=stride,
        padding=padding,
        output_padding=extra,
    )
    # The transposed kernel spreads input o to cells o * stride - padding + k: the pairs of the forward one.
    assert_same(ours, rows_of(dense, coords) + bias, (features, weight, bias))


def conv_arguments(counts, *, center: bool, dtype=torch.float64, device="cpu"):
    coords = random_coords((3, 4, 4), counts, 2).to(device)
    if center:
        rulebook = submanifold_rulebook(coords, (3, 4, 4), (3, 3, 3))
    else:
        rulebook, _ = strided_rulebook(coords, (3, 4, 4), (3, 3, 3), (2, 2, 2), (1, 1, 1))
    features, weight, _ = leaves(len(coords), (3, 3, 3), 0, 2, 3)
    rows = (rulebook.in_rows, rulebook.out_rows, list(rulebook.counts), rulebook.center, rulebook.num_out)
    features, weight = (leaf.detach().to(device, dtype).requires_grad_() for leaf in (features, weight))
    return features, weight, *rows


def on_device(arguments, device):
    return [
        arg.detach().to(device).requires_grad_(arg.requires_grad) if isinstance(arg, torch.Tensor) else arg
        for arg in arguments
    ]


@pytest.mark.parametrize("center", [True, False], ids=["submanifold", "strided"])
@pytest.mark.parametrize("counts", [[0], [0, 0], [1], [9, 0, 12]], ids=str)
def test_registration_and_gradients(counts, center, device):
    assert_op(torch.ops.equilidar.sparse_conv.default, on_device(conv_arguments(counts, center=center), device))


@pytest.mark.parametrize("center", [True, False], ids=["submanifold", "strided"])
def test_tensors_of_any_strides(center, device):
    features, weight, *rows = on_device(conv_arguments([9, 0, 12], center=center), device)
    # Features by column, weights as an adjoint's: (in, kz, ky, kx, out) seen from the other end; every second row.
    by_column = features.detach().T.contiguous().T.requires_grad_()
    permuted = weight.detach().permute(4, 1, 2, 3, 0).contiguous().permute(4, 1, 2, 3, 0).requires_grad_()
    spread = [tensor.repeat_interleave(2)[::2] for tensor in rows[:2]]
    assert not by_column.is_contiguous() and not permuted.is_contiguous() and not spread[0].is_contiguous()
    arguments = (by_column, permuted, *spread, *rows[2:])
    assert_op(torch.ops.equilidar.sparse_conv.default, arguments)
    assert torch.equal(
        torch.ops.equilidar.sparse_conv(*arguments), torch.ops.equilidar.sparse_conv(features, weight, *rows)
    )


@pytest.mark.parametrize("center", [True, False], ids=["submanifold", "strided"])
def test_weight_gradient_op(center, device):
    features, weight, in_rows, out_rows, counts, offset, num_out = on_device(
        conv_arguments([9, 0, 12], center=center), device
    )
    generator = torch.Generator().manual_seed(2)
    grad = torch.randn(num_out, len(weight), generator=generator, dtype=torch.float64).to(device).requires_grad_()
    arguments = (features, grad, in_rows, out_rows, counts, offset, list(weight.shape[1:4]))
    assert_op(torch.ops.equilidar.sparse_conv_weight_grad.default, arguments)


def test_gradients_can_be_differentiated_again():
    arguments = conv_arguments([5, 0, 6], center=True)
    rows = arguments[2:]
    assert torch.autograd.gradgradcheck(
        lambda features, weight: torch.ops.equilidar.sparse_conv(features, weight, *rows), arguments[:2]
    )


def test_sums_are_kept_in_float32_under_autocast():
    """27 neighbours of 1 + 1/128: exact in float32, rounded each time if the sum were kept in bfloat16."""
    coords = random_coords((3, 3, 3), [27], 0)
    features = torch.ones(27, 1)
    weight = torch.full((1, 3, 3, 3, 1), 1 + 1 / 128)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = sparse_conv(features, weight, submanifold_rulebook(coords, (3, 3, 3), (3, 3, 3)))
    assert out.dtype == torch.bfloat16
    assert out[13] == torch.tensor(27 * (1 + 1 / 128)).bfloat16()


@pytest.mark.parametrize("center", [True, False], ids=["submanifold", "strided"])
def test_any_number_of_threads_gives_the_same_bits(center):
    shape = (16, 24, 24)
    coords = random_coords(shape, [3000, 0, 2000], 0)
    if center:
        rulebook = submanifold_rulebook(coords, shape, (3, 3, 3))
    else:
        rulebook, _ = strided_rulebook(coords, shape, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    features, weight, bias = (tensor.detach().float().requires_grad_() for tensor in leaves(5000, (3, 3, 3), 0, 16, 20))

    def run() -> tuple[torch.Tensor, ...]:
        out = sparse_conv(features, weight, rulebook, bias)
        return out, *torch.autograd.grad(out.square().sum(), (features, weight, bias))

    assert_same_bits_with_any_threads(run)


def test_what_does_not_belong_together_is_refused():
    coords = random_coords((3, 4, 4), [9], 2)
    rulebook = submanifold_rulebook(coords, (3, 4, 4), (3, 3, 3))
    with pytest.raises(ValueError, match="rows"):
        sparse_conv(torch.zeros(8, 2), torch.zeros(3, 3, 3, 3, 2), rulebook)
    with pytest.raises(ValueError, match="27 offsets"):
        sparse_conv(torch.zeros(9, 2), torch.zeros(3, 3, 1, 1, 2), rulebook)
