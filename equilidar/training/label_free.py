"""Pretraining refuses whatever reads labels, before anything is built."""

from collections.abc import Iterator, Mapping
from typing import Any

# Config groups of finetuning that hold labels; a config of pretraining has no place for them.
LABEL_GROUPS = ("gt_sampling", "labels")
_LABEL_MODULES = ("equilidar.data.gt_", "equilidar.data.subset", "equilidar.augment.labelled")


def refuse_labels(config: Mapping[str, Any]) -> None:
    """Raise ValueError where a pretraining config names something that reads labels.

    Args:
        config: composed config as plain values.
    """
    for group in LABEL_GROUPS:
        if group in config:
            raise ValueError(f"{refusal(group)}: drop it")
    for key, target in _targets(config):
        if target.startswith(_LABEL_MODULES):
            raise ValueError(f"{key} is {target}, which reads labels: pretraining uses none; drop it")


def refusal(group: str) -> str:
    """Say why a group has no place in pretraining."""
    what = "pastes labelled objects" if group == "gt_sampling" else "chooses labelled sweeps"
    return f"{group} {what}, and pretraining uses no labels"


def _targets(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if isinstance(value.get("_target_"), str):
            yield key or "config", value["_target_"]
        for name, item in value.items():
            yield from _targets(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _targets(item, f"{key}[{index}]")
