"""Projection heads, and the mode in which their onlookers read them."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from equilidar.nn.norm import BatchNorm1d


def projection_head(widths: Sequence[int], *, output_norm: bool = False) -> nn.Sequential:
    """Return Linear layers of the given widths, input first, with BatchNorm and ReLU between them.

    On rows of occupied cells a Linear layer is what a 1x1 convolution is on a dense map, without its empty cells.

    Args:
        widths: of the layers; the first is the input's.
        output_norm: end with a BatchNorm without scale and shift, so that the output has no mean.
    """
    layers: list[nn.Module] = []
    for i, (inside, outside) in enumerate(itertools.pairwise(widths)):
        if i:
            layers += [BatchNorm1d(inside), nn.ReLU()]
        # A bias before a BatchNorm would be subtracted again.
        layers.append(nn.Linear(inside, outside, bias=i == len(widths) - 2 and not output_norm))
    if output_norm:
        layers.append(BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)


def classification_head(widths: Sequence[int]) -> nn.Sequential:
    """Return Linear layers of the given widths, input first, with LayerNorm and ReLU between them (E-SSL's head)."""
    layers: list[nn.Module] = []
    for i, (inside, outside) in enumerate(itertools.pairwise(widths)):
        if i:
            layers += [nn.LayerNorm(inside), nn.ReLU()]
        layers.append(nn.Linear(inside, outside))
    return nn.Sequential(*layers)


@contextlib.contextmanager
def looked_at(*modules: nn.Module) -> Iterator[None]:
    """Run heads without gradient and in eval mode, so that looking changes no running statistic."""
    training = [(module, module.training) for head in modules for module in head.modules()]
    for head in modules:
        head.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training:
            module.training = mode
