"""Axis orders of stored sparse kernels, and which one a file has.

    krsc  (out, kz, ky, kx, in)   spconv 2.x implicit GEMM, and everything from 2.2: ours
    rsck  (kz, ky, kx, in, out)   spconv 1.x, and mmcv's port of it
    rskc  (kz, ky, kx, out, in)   spconv 2.0 and 2.1, native algorithm

Where in = out, rsck and rskc look alike. A file has one layout for all its kernels; it is taken from the shapes only if
they leave one choice, and asked for otherwise.

Kernels of one cell (1, 1, 1) are an exception: every version of spconv multiplies by `weight.view(in, out)` whatever
shape it gives the tensor (2.3.8, `pytorch/conv.py`, `conv1x1`), so that their memory is an (in, out) matrix.
"""

from collections.abc import Mapping

from torch import Tensor

_TO_KRSC: dict[str, tuple[int, ...]] = {"krsc": (0, 1, 2, 3, 4), "rsck": (4, 0, 1, 2, 3), "rskc": (3, 0, 1, 2, 4)}
_FROM_KRSC: dict[str, tuple[int, ...]] = {"krsc": (0, 1, 2, 3, 4), "rsck": (1, 2, 3, 4, 0), "rskc": (1, 2, 3, 0, 4)}
_ALIASES = {"spconv2": "krsc", "spconv1": "rsck", "spconv2_native": "rskc"}

LAYOUTS = tuple(_TO_KRSC)

Shape = tuple[int | None, ...]
"""(out, kz, ky, kx, in) of a kernel; None where any number will do."""


def layout_named(name: str) -> str:
    """Return the layout of a name or of a version of spconv.

    Raises:
        ValueError: there is none of that name.
    """
    layout = _ALIASES.get(name, name)
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join((*LAYOUTS, *_ALIASES))}, got {name!r}")
    return layout


def is_kernel(tensor: Tensor) -> bool:
    """Tell whether a tensor of a state is a sparse convolution's kernel."""
    return tensor.dim() == 5


def to_krsc(kernel: Tensor, layout: str) -> Tensor:
    """Return a stored kernel in our layout."""
    ordered = kernel.permute(_TO_KRSC[layout])
    if not _is_one_cell(ordered):
        return ordered
    return kernel.reshape(ordered.shape[4], ordered.shape[0]).t().reshape(ordered.shape)


def from_krsc(kernel: Tensor, layout: str) -> Tensor:
    """Return a kernel of ours as `layout` stores it; the inverse of `to_krsc`."""
    ordered = kernel.permute(_FROM_KRSC[layout])
    if not _is_one_cell(kernel):
        return ordered
    return kernel.reshape(kernel.shape[0], kernel.shape[4]).t().reshape(ordered.shape)


def fitting_layouts(kernels: Mapping[str, Tensor], wanted: Mapping[str, Shape]) -> list[str]:
    """Return the layouts under which every kernel that both sides have is of the wanted shape."""
    return [layout for layout in LAYOUTS if not _misfits(kernels, wanted, layout)]


def choose_layout(kernels: Mapping[str, Tensor], wanted: Mapping[str, Shape], asked: str | None, source: str) -> str:
    """Return the layout of a file's kernels.

    Args:
        kernels: as stored, by name.
        wanted: shapes of the network's kernels in our layout.
        asked: what the user or the file itself says; None takes the only one that fits.
        source: name for messages.

    Raises:
        ValueError: several layouts fit and none is asked for, or another one fits than is asked for.
    """
    fitting = fitting_layouts(kernels, wanted)
    if asked is not None:
        layout = layout_named(asked)
        if fitting and layout not in fitting:
            raise ValueError(
                f"{source}: sparse kernels are not stored as layout={asked}; by their shapes, "
                f"try {' or '.join(fitting)}"
            )
        return layout
    if len(fitting) > 1 and any(name in wanted for name in kernels):
        raise ValueError(
            f"{source}: the shapes of its sparse kernels fit layout {' and '.join(fitting)}, for all have as many "
            "inputs as outputs; say which it is: layout=rsck (spconv 1.x), rskc (2.0 and 2.1 native) or krsc (2.2 on)"
        )
    # Without a fit nothing can be said; what is mis-shaped is then reported tensor by tensor.
    return fitting[0] if fitting else "krsc"


def _misfits(kernels: Mapping[str, Tensor], wanted: Mapping[str, Shape], layout: str) -> bool:
    order = _TO_KRSC[layout]
    return any(
        any(size not in (None, kernel.shape[axis]) for size, axis in zip(wanted[name], order, strict=True))
        for name, kernel in kernels.items()
        if name in wanted
    )


def _is_one_cell(kernel: Tensor) -> bool:
    return kernel.shape[1:4].numel() == 1
