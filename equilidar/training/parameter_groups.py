"""The optimizer's groups of a finetuning run: the backbone, which may learn more slowly, and the rest."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

BACKBONE, REST = "backbone", "detector"


def parameter_groups(module: nn.Module, backbone: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters of a module that are trained, named by what they are part of; no empty group.

    Args:
        module: holds everything.
        backbone: part of `module`.
    """
    inside = {id(parameter) for parameter in backbone.parameters()}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = {
        REST: [parameter for parameter in trained if id(parameter) not in inside],
        BACKBONE: [parameter for parameter in trained if id(parameter) in inside],
    }
    return [{"params": parameters, "name": name} for name, parameters in groups.items() if parameters]


def scale_group_rates(optimizer: Optimizer, factors: Mapping[str, float | int]) -> None:
    """Multiply the learning rates of named groups; before a schedule is made, which takes them for the peaks.

    Raises:
        ValueError: a factor is not positive (a backbone that should not learn at all is init=frozen).
    """
    for name, factor in factors.items():
        if not factor > 0:
            raise ValueError(f"{name}_lr must be positive, got {factor}; init=frozen trains no backbone at all")
    for group in optimizer.param_groups:
        group["lr"] *= factors.get(group.get("name", ""), 1.0)


def group_rates(optimizer: Optimizer) -> dict[str, float]:
    """Return what is logged: "lr" of the detector (the first group) and, where it differs, "lr_backbone"."""
    rates = {group.get("name", ""): group["lr"] for group in optimizer.param_groups}
    first = optimizer.param_groups[0]["lr"]
    own = rates.get(BACKBONE, first)
    return {"lr": first} if own == first else {"lr": first, "lr_backbone": own}
