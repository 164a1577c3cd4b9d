"""The spconv engine: the same convolutions by the library `spconv` (CUDA), where it is installed.

Weights have spconv's own layout, so nothing is converted. Rows differ: spconv orders the output of a strided
convolution as its hash table happens to; here they are sorted, so that engines agree row by row.
On CPU spconv 2.3.8 returns wrong rows as soon as torch runs more than one thread; it is an oracle there, never a
default.
"""

import functools
from typing import Any, Literal

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from equilidar.ops.rulebook import IntTriple, cell_keys

Kind = Literal["submanifold", "strided", "inverse"]
_ORDER = "order of "


@functools.cache
def import_error() -> str | None:
    """Return why spconv cannot be used at all, None if it imports."""
    try:
        import spconv.pytorch  # noqa: F401  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@functools.cache
def has_cuda() -> bool:
    """Tell whether the installed spconv was built for CUDA (the wheel named `spconv` is for CPU alone)."""
    if import_error() is not None:
        return False
    from spconv.cppconstants import CPU_ONLY_BUILD  # pyright: ignore[reportMissingImports]

    return not CPU_ONLY_BUILD


def check_usable(device: torch.device) -> None:
    """Raise ValueError where spconv was asked for and would be absent or wrong."""
    if (error := import_error()) is not None:
        raise ValueError(
            f"engine=spconv: spconv cannot be imported ({error}); install spconv-cu126 (CUDA) or use engine=auto"
        )
    if device.type == "cpu" and torch.get_num_threads() != 1:
        raise ValueError(
            f"engine=spconv on CPU returns wrong rows with more than one thread, and torch has "
            f"{torch.get_num_threads()}; call torch.set_num_threads(1), or use engine=reference"
        )
    if device.type == "cuda" and not has_cuda():
        raise ValueError("engine=spconv: the installed spconv is for CPU; install spconv-cu126, or use engine=auto")


@functools.cache
def _module(
    kind: Kind, in_channels: int, out_channels: int, kernel: IntTriple, stride: IntTriple, padding: IntTriple
) -> Any:
    """Return an spconv module of this geometry; its own weight is never used."""
    import spconv.pytorch as spconv  # pyright: ignore[reportMissingImports]

    key = _pairs_key(kind, kernel, stride, padding)
    if kind == "submanifold":
        return spconv.SubMConv3d(in_channels, out_channels, kernel, bias=False, indice_key=key)
    if kind == "inverse":
        return spconv.SparseInverseConv3d(in_channels, out_channels, kernel, bias=False, indice_key=key)
    # Its annotations ask for ints where tuples are meant.
    geometry: Any = (kernel, stride, padding)
    return spconv.SparseConv3d(in_channels, out_channels, *geometry, bias=False, indice_key=key)


def _pairs_key(kind: Kind, kernel: IntTriple, stride: IntTriple, padding: IntTriple) -> str:
    """Name spconv's pair table; an inverse convolution reads that of its forward one."""
    return f"submanifold {kernel}" if kind == "submanifold" else f"strided {kernel} {stride} {padding}"


def can_invert(tables: dict[str, Any], kernel: IntTriple, stride: IntTriple, padding: IntTriple) -> bool:
    """Tell whether `tables` hold the strided convolution of this geometry."""
    return _pairs_key("inverse", kernel, stride, padding) in tables


def convolve(
    kind: Kind,
    features: Float[Tensor, "V C_in"],
    weight: Float[Tensor, "C_out kz ky kx C_in"],
    coords: Int32[Tensor, "V 4"],
    shape: IntTriple,
    batch_size: int,
    stride: IntTriple,
    padding: IntTriple,
    tables: dict[str, Any],
) -> tuple[Float[Tensor, "W C_out"], Int32[Tensor, "W 4"]]:
    """Convolve with spconv; differentiable in features and weight.

    Args:
        kind: which convolution.
        features: at least one row.
        weight: cross-correlation kernel.
        coords: unique [batch, z, y, x] of the features.
        shape: cells (z, y, x) of the features' grid.
        batch_size: items.
        stride: of a strided convolution, and of the one that an inverse one undoes.
        padding: likewise.
        tables: spconv's pair tables of `coords` (of the fine coords for an inverse convolution); filled here.

    Returns:
        Output rows and their coords: sorted after a strided convolution, in the order of the fine coords otherwise.
    """
    import spconv.pytorch as spconv  # pyright: ignore[reportMissingImports]

    check_usable(features.device)
    kernel: IntTriple = (weight.shape[1], weight.shape[2], weight.shape[3])
    module = _module(kind, features.shape[1], weight.shape[0], kernel, stride, padding)
    key = _pairs_key(kind, kernel, stride, padding)
    if kind == "inverse":
        back = tables[_ORDER + key].argsort()
        features, coords = features[back], coords[back]
    # spconv refuses to run a strided convolution from a table that is there already.
    pairs = {} if kind == "strided" else {name: tables[name] for name in (key,) if name in tables}
    tensor = spconv.SparseConvTensor(features.contiguous(), coords, list(shape), batch_size, indice_dict=pairs)
    result = torch.func.functional_call(module, {"weight": weight}, (tensor,))
    tables[key] = result.indice_dict[key]
    if kind != "strided":
        return result.features, result.indices
    order = tables[_ORDER + key] = cell_keys(result.indices, result.spatial_shape).argsort()
    return result.features[order], result.indices[order]
