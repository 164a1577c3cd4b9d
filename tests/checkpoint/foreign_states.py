"""States as other code bases store them, made from their documented names; nothing here comes from our networks.

Layers are listed in the order in which points meet them, so that one set of numbers can be told by all names.
"""

import math

import torch
from torch import Tensor, nn

from equilidar.structures import GridSpec

GRID = GridSpec((0.0, -3.2, -3.0), (6.4, 3.2, 1.0), (0.1, 0.1, 0.1))

# (kernel, inputs, outputs, bias) of each convolution; a normalisation follows each.
Layer = tuple[tuple[int, int, int], int, int, bool]
CUBE, COLUMN = (3, 3, 3), (3, 1, 1)


def plain_layers(inputs: int = 4) -> list[Layer]:
    """VoxelBackBone8x: twelve convolutions without bias."""
    widths = [(inputs, 16), (16, 16), (16, 32), (32, 32), (32, 32), (32, 64), (64, 64), (64, 64), *[(64, 64)] * 3]
    return [*((CUBE, a, b, False) for a, b in widths), (COLUMN, 64, 128, False)]


def residual_layers(inputs: int = 5, bias: bool = True) -> list[Layer]:
    """VoxelResBackBone8x: a stem, four blocks of four convolutions with bias, three strided ones, the last one."""
    layers: list[Layer] = [(CUBE, inputs, 16, False)]
    for before, width in ((None, 16), (16, 32), (32, 64), (64, 128)):
        layers += [] if before is None else [(CUBE, before, width, False)]
        layers += [(CUBE, width, width, bias)] * 4
    return [*layers, (COLUMN, 128, 128, False)]


def _pairs(prefix: str) -> tuple[str, str]:
    return f"{prefix}.0", f"{prefix}.1"


def _blocks(stage: str, first: int) -> list[tuple[str, str]]:
    return [(f"{stage}.{i}.conv{n}", f"{stage}.{i}.bn{n}") for i in (first, first + 1) for n in (1, 2)]


OPENPCDET_PLAIN = [
    _pairs("conv_input"),
    _pairs("conv1.0"),
    *(_pairs(f"conv{stage}.{i}") for stage in (2, 3, 4) for i in range(3)),
    _pairs("conv_out"),
]
OPENPCDET_RESIDUAL = [
    _pairs("conv_input"),
    *_blocks("conv1", 0),
    *(name for stage in (2, 3, 4) for name in (_pairs(f"conv{stage}.0"), *_blocks(f"conv{stage}", 1))),
    _pairs("conv_out"),
]
_MM = "encoder_layers.encoder_layer"
MM_PLAIN = [
    _pairs("conv_input"),
    _pairs(f"{_MM}1.0"),
    *(_pairs(f"{_MM}{stage}.{i}") for stage in (2, 3, 4) for i in range(3)),
    _pairs("conv_out"),
]
MM_RESIDUAL = [
    _pairs("conv_input"),
    *(name for stage in (1, 2, 3) for name in (*_blocks(f"{_MM}{stage}", 0), _pairs(f"{_MM}{stage}.2"))),
    *_blocks(f"{_MM}4", 0),
    _pairs("conv_out"),
]
DET3D_RESIDUAL = [
    _pairs("conv_input"),
    *_blocks("conv1", 0),
    *(name for stage in (2, 3, 4) for name in (_pairs(f"conv{stage}"), *_blocks(f"conv{stage}", 3))),
    _pairs("extra_conv"),
]


def state(layers: list[Layer], names: list[tuple[str, str]], prefix: str = "", seed: int = 7) -> dict[str, Tensor]:
    """Return the state in spconv 2.2's layout; the same seed and layers give the same numbers under any names."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for (kernel, inputs, outputs, bias), (conv, norm) in zip(layers, names, strict=True):
        # As wide as layers begin with: features of 1e10 would be refused by what detects with them.
        spread = (2 / (math.prod(kernel) * inputs)) ** 0.5
        numbers = {f"{conv}.weight": torch.randn(outputs, *kernel, inputs, generator=generator) * spread}
        drawn = torch.randn(5, outputs, generator=generator)
        if bias:
            numbers[f"{conv}.bias"] = drawn[4]
        for row, name in enumerate(("weight", "bias", "running_mean", "running_var")):
            numbers[f"{norm}.{name}"] = drawn[row].abs() if name == "running_var" else drawn[row]
        numbers[f"{norm}.num_batches_tracked"] = torch.tensor(len(tensors))
        tensors |= {prefix + name: value for name, value in numbers.items()}
    return tensors


def stored_as(tensors: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Return a state in an older layout: rsck (spconv 1.x) or rskc (2.0 and 2.1 native)."""
    order = {"rsck": (1, 2, 3, 4, 0), "rskc": (1, 2, 3, 0, 4)}[layout]
    return {n: value.permute(order).contiguous() if value.dim() == 5 else value for n, value in tensors.items()}


class Named(nn.Module):
    """A network of the given names and shapes: what an import meets, for classes of any kind."""

    def __init__(self, tensors: dict[str, Tensor], in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        for name, value in tensors.items():
            *parents, last = name.split(".")
            module: nn.Module = self
            for parent in parents:
                if parent not in dict(module.named_children()):
                    module.add_module(parent, nn.Module())
                module = module.get_submodule(parent)
            module.register_buffer(last, torch.full_like(value, -1))


def residual_backbone(inputs: int = 5) -> Named:
    """Return a backbone with the names of OpenPCDet's VoxelResBackBone8x."""
    return Named(state(residual_layers(inputs), OPENPCDET_RESIDUAL), inputs)
