"""Names the known key, group or option that is nearest to a mistyped one."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from equilidar.training.label_free import LABEL_GROUPS, refusal


def nearest(key: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `key`; a bare name is also compared with the last part of dotted ones."""

    def likeness(candidate: str) -> float:
        whole = difflib.SequenceMatcher(None, key, candidate).ratio()
        tail = candidate.rpartition(".")[2]
        return max(whole, 0.95 * difflib.SequenceMatcher(None, key, tail).ratio()) if "." not in key else whole

    return max(sorted(known), key=likeness, default=None)


def explain_override(error: Exception, config_dir: str, config_name: str, overrides: list[str]) -> str:
    """Return one line about a composition that failed, with the nearest known name where a name was wrong."""
    given = [text for text in overrides if "=" in text and not text.startswith("-")]
    given.sort(key=lambda text: "." in text.partition("=")[0])  # groups first: they decide which keys there are
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=config_dir, version_base="1.3"):
        for number, text in enumerate(given):
            try:
                compose(config_name, _single(given[: number + 1]))
            except (HydraException, OmegaConfBaseException) as culprit:
                return _about(culprit, text, config_name, given[:number])
    return " ".join(str(error).split())


def missing_keys(cfg: DictConfig) -> list[str]:
    """Return the keys that are `???`. OmegaConf's own search stops at an interpolation that leads to one."""
    return sorted(_missing(OmegaConf.to_container(cfg, resolve=False)))


def _missing(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _missing(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _missing(item, f"{key}[{index}]")
    elif value == "???":
        yield key


def _single(overrides: list[str]) -> list[str]:
    """Reduce sweeps to their first value and leave out Hydra's own settings: enough to learn which keys are known."""
    kept = []
    for override in OverridesParser.create().parse_overrides(overrides):
        line = override.input_line or ""
        if (override.key_or_group or "").startswith("hydra"):
            continue
        if override.is_sweep_override():
            line = f"{line.partition('=')[0]}={next(override.sweep_string_iterator())}"
        kept.append(line)
    return kept


def _about(error: Exception, text: str, config_name: str, before: list[str]) -> str:
    try:
        override: Override = OverridesParser.create().parse_overrides([text])[0]
    except HydraException as unreadable:
        return f"cannot read the override '{text}': {' '.join(str(unreadable).split())}"
    key, value = override.key_or_group or "", text.partition("=")[2]
    loader = GlobalHydra.instance().config_loader()
    # Only what was composed without trouble tells which keys exist.
    composed = compose(config_name, _single(before))
    groups = _groups(loader)
    if key in groups:
        options = loader.get_group_options(key)
        wrong = [name for name in value.strip("[]").split(",") if name not in options]
        if isinstance(error, MissingConfigException) and wrong:
            return f"no option '{wrong[0]}' in group '{key}'; nearest known: '{nearest(wrong[0], options)}'"
        if config_name == "pretrain" and key in LABEL_GROUPS:
            return f"{refusal(key)}: drop it"
        if key == "experiment" and not text.startswith("+"):
            return f"experiments are added: +{text}"
        return f"override '{text}': {' '.join(str(error).split())}"
    keys = set(_keys(composed))
    if key in keys:
        return f"override '{text}': {' '.join(str(error).split())}"
    return f"no key '{key}'; nearest known: '{nearest(key, keys | groups)}'"


def _groups(loader: ConfigLoader, parent: str = "") -> set[str]:
    names = [f"{parent}/{name}" if parent else name for name in loader.list_groups(parent)]
    names = [name for name in names if name != "hydra"]
    found = {name for name in names if loader.get_group_options(name, ObjectType.CONFIG)}
    return found.union(*(_groups(loader, name) for name in names))


def _keys(cfg: DictConfig | ListConfig, prefix: str = "") -> Iterable[str]:
    if not isinstance(cfg, DictConfig):
        return
    for key in cfg:
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(cfg, key) and OmegaConf.is_dict(node := cfg._get_node(key)):
            yield from _keys(node, f"{prefix}{key}.")  # pyright: ignore[reportArgumentType]
