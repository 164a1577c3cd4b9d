"""Sparse 3D convolutions on `SparseVoxels`.

Weights are (out, kz, ky, kx, in), initialised as spconv (2.3) initialises them and torch its dense convolutions:
uniform within 1 / sqrt(fan_in), weight and bias.
"""

import math

import torch
from torch import Tensor, nn

from equilidar.nn import rulebook_cache
from equilidar.ops import _extension
from equilidar.ops import sparse_engine_spconv as spconv_engine
from equilidar.ops.rulebook import IntTriple, output_shape
from equilidar.ops.sparse_conv import sparse_conv
from equilidar.structures import SparseVoxels

Size = int | tuple[int, ...] | list[int]
ENGINES = ("auto", "reference", "spconv")


class SparseConvBase(nn.Module):
    """Weights, and the choice of the engine, of a sparse convolution.

    Attributes:
        weight: (out, kz, ky, kx, in).
        bias: (out,) or None.
        engine: "reference" is our op (rulebook, gather, multiply, scatter-add); "spconv" the library; "auto" is
            spconv for CUDA features where a CUDA build of it is installed and no deterministic algorithms are asked
            for, and our op elsewhere.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size = 0,
        *,
        bias: bool = False,
        engine: str = "auto",
    ) -> None:
        super().__init__()
        if engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
        # Here rather than on import: whoever builds a network is about to wait for it.
        _extension.advise()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = _triple(kernel_size, "kernel_size")
        self.stride = _triple(stride, "stride")
        self.padding = _triple(padding, "padding")
        self.engine = engine
        self.weight = nn.Parameter(torch.empty(out_channels, *self.kernel_size, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew, uniform within 1 / sqrt(fan_in)."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, bias={self.bias is not None}, engine={self.engine}"
        )

    def _use_spconv(self, features: Tensor) -> bool:
        if features.shape[1] != self.in_channels:
            raise ValueError(f"voxels have {features.shape[1]} channels, the convolution takes {self.in_channels}")
        deterministic = torch.are_deterministic_algorithms_enabled()
        if self.engine == "spconv":
            spconv_engine.check_usable(features.device)
            if deterministic and features.device.type == "cuda":
                raise ValueError(
                    "engine=spconv adds gradients in changing order on CUDA, so a run with deterministic=true cannot "
                    "use it; use engine=auto, which then takes our own kernels"
                )
        chosen = self.engine == "spconv" or (
            self.engine == "auto"
            and features.device.type == "cuda"
            and spconv_engine.has_cuda()
            and not deterministic
        )
        # spconv fails on no voxels, and reads weights of kernel volume 1 transposed (spconv#556).
        return chosen and len(features) > 0 and math.prod(self.kernel_size) > 1

    def _run_spconv(
        self, kind: spconv_engine.Kind, voxels: SparseVoxels, tables: SparseVoxels
    ) -> tuple[Tensor, Tensor]:
        features, coords = spconv_engine.convolve(
            kind,
            voxels.features,
            self.weight,
            voxels.coords,
            voxels.shape,
            voxels.batch_size,
            self.stride,
            self.padding,
            tables.rulebooks.setdefault(("spconv", tables.shape), {}),
        )
        return features if self.bias is None else features + self.bias.to(features.dtype), coords


class SubmanifoldConv3d(SparseConvBase):
    """Convolution whose output cells are its input cells (Graham et al., CVPR 2018); odd kernels, stride 1."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Size = 3, *, bias: bool = False, engine: str = "auto"
    ) -> None:
        kernel = _triple(kernel_size, "kernel_size")
        if any(size % 2 == 0 for size in kernel):
            raise ValueError(f"kernel_size of a submanifold convolution must be odd, got {kernel}")
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_channels, out_channels, kernel, 1, padding, bias=bias, engine=engine)

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        if self._use_spconv(voxels.features):
            return voxels.with_features(self._run_spconv("submanifold", voxels, voxels)[0])
        rulebook = rulebook_cache.submanifold(voxels, self.kernel_size)
        return voxels.with_features(sparse_conv(voxels.features, self.weight, rulebook, self.bias))


class SparseConv3d(SparseConvBase):
    """Convolution that yields every cell which its kernel reaches; sorted output, stride multiplied."""

    def forward(self, voxels: SparseVoxels) -> SparseVoxels:
        if self._use_spconv(voxels.features):
            features, coords = self._run_spconv("strided", voxels, voxels)
            shape = output_shape(voxels.shape, self.kernel_size, self.stride, self.padding)
            return self._coarse(voxels, features, coords, shape)
        down = rulebook_cache.downsampling(voxels, self.kernel_size, self.stride, self.padding)
        features = sparse_conv(voxels.features, self.weight, down.rulebook, self.bias)
        coarse = self._coarse(voxels, features, down.coords, down.shape)
        coarse.rulebooks = down.rulebooks
        return coarse

    def _coarse(self, fine: SparseVoxels, features: Tensor, coords: Tensor, shape: IntTriple) -> SparseVoxels:
        z, y, x = (old * step for old, step in zip(fine.stride, self.stride, strict=True))
        return SparseVoxels(coords, features, fine.grid, shape, (z, y, x), fine.batch_size)


class InverseConv3d(SparseConvBase):
    """Convolution back onto the cells that a `SparseConv3d` of the same kernel, stride and padding started from."""

    def forward(self, voxels: SparseVoxels, like: SparseVoxels) -> SparseVoxels:
        """Carry coarse features to the fine cells.

        Args:
            voxels: coarse voxels.
            like: voxels from whose coords the coarse ones came; their features are not read.

        Raises:
            ValueError: `voxels` is not what this geometry makes of `like`.
        """
        expected = output_shape(like.shape, self.kernel_size, self.stride, self.padding)
        down = None
        if not self._use_spconv(voxels.features) or not self._has_pairs(like):
            down = rulebook_cache.downsampling(like, self.kernel_size, self.stride, self.padding)
        if voxels.shape != expected or (down is not None and len(down.coords) != len(voxels.coords)):
            raise ValueError(
                f"a convolution of kernel {self.kernel_size}, stride {self.stride}, padding {self.padding} does not "
                f"lead from {len(like.coords)} voxels in {like.shape} cells to {len(voxels.coords)} in {voxels.shape}"
            )
        if down is None:
            return like.with_features(self._run_spconv("inverse", voxels, like)[0])
        return like.with_features(sparse_conv(voxels.features, self.weight, down.rulebook.inverted(), self.bias))

    def _has_pairs(self, like: SparseVoxels) -> bool:
        """Tell whether spconv ran the convolution that is to be inverted."""
        tables = like.rulebooks.get(("spconv", like.shape), {})
        return spconv_engine.can_invert(tables, self.kernel_size, self.stride, self.padding)


def _triple(value: Size, name: str) -> IntTriple:
    sizes = (value, value, value) if isinstance(value, int) else tuple(value)
    if len(sizes) != 3:
        raise ValueError(f"{name} must be an int or 3 ints (z, y, x), got {value}")
    return sizes[0], sizes[1], sizes[2]
