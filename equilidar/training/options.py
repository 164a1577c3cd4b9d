"""Options of a config group by name, for tools that take several of one group."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from equilidar.training.known_keys import missing_keys, nearest


def named_options(
    config_name: str, group: str, names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, DictConfig]:
    """Compose options of a group, as `group=NAME` would choose them one at a time.

    To be called inside an entry point.

    Args:
        config_name: entry config that lists the group among its defaults.
        group: of the options.
        names: of the options.
        settings: values by option and key, instead of those in the option's file.

    Raises:
        ValueError: an unknown option or key (the message names the nearest known one), one that is named twice, or one
            with a `???` value that was not given.
    """
    known = GlobalHydra.instance().config_loader().get_group_options(group)
    for name in [*names, *settings]:
        if name not in known:
            raise ValueError(f"no option '{name}' in group '{group}'; nearest known: '{nearest(name, known)}'")
    unused = [name for name in settings if name not in names]
    if unused or len(set(names)) < len(names):
        wrong = f"settings are for {unused[0]}" if unused else f"{list(names)} names one twice"
        raise ValueError(f"{wrong}; the options of group '{group}' are given by name, each once")
    return {name: _composed(config_name, group, name, settings.get(name, {})) for name in names}


def _composed(config_name: str, group: str, name: str, settings: Mapping[str, Any]) -> DictConfig:
    option = compose(config_name, [f"{group}={name}"])[group]
    for key, value in settings.items():
        known = [str(other) for other in option]  # `in` does not see keys whose value is still missing
        if key not in known:
            close = nearest(key, known)
            raise ValueError(f"no key '{key}' in {group}={name}; nearest known: '{close}'")
        OmegaConf.update(option, key, value)
    missing = missing_keys(option)
    if missing:
        given = " ".join(f"+settings.{name}.{key}=..." for key in missing)
        raise ValueError(f"{group}={name} needs {', '.join(missing)}: add {given}")
    return option
