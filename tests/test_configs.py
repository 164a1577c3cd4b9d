"""Every config file composes, and what it names can be built."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import get_class, get_method, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from equilidar.training.known_keys import missing_keys

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ENTRIES = {path.stem for path in CONFIGS.glob("*.yaml")}
GROUPS = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "experiment")
EXPERIMENTS = sorted((CONFIGS / "experiment").glob("*.yaml"))


def _compose(entry: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(entry, list(overrides))


def _entry_of(path: Path) -> str:
    """Return the entry config that an experiment is for, by the command in its header."""
    words = path.read_text().split()
    return next(Path(word).stem for word in words if word.startswith("tools/"))


def _targets(node) -> list[DictConfig]:
    found = []
    if isinstance(node, DictConfig):
        if "_target_" in node:
            found.append(node)
        children = [
            key for key in node if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key)
        ]
        found += [target for key in children for target in _targets(node._get_node(key))]
    elif isinstance(node, ListConfig):
        found += [target for child in node for target in _targets(child)]
    return found


def _exists(target: str) -> bool:
    try:
        get_class(target)
    except (ImportError, ValueError):
        get_method(target)
    return True


@pytest.mark.parametrize("entry", sorted(ENTRIES))
def test_entry_composes_and_its_targets_exist(entry):
    cfg = _compose(entry)
    assert all(_exists(node._target_) for node in _targets(cfg))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment_composes_resolves_and_names_its_command(path, monkeypatch):
    monkeypatch.setenv("EQUILIDAR_SAMPLES", "/nowhere")
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_" and f"+experiment={path.stem}" in lines[1]
    cfg = _compose(_entry_of(path), f"+experiment={path.stem}")
    for key in missing_keys(cfg):
        OmegaConf.update(cfg, key, "/nowhere")
    OmegaConf.to_container(cfg, resolve=True)
    assert all(_exists(node._target_) for node in _targets(cfg))


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_group_config_names_only_arguments_that_its_class_has(path, tmp_path):
    group = path.parent.name
    if group in ("hydra", "paths", "debug"):
        return
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        grid = {"_target_": "equilidar.structures.GridSpec.from_range", "point_range": [0, -12.8, -3, 25.6, 12.8, 1]}
        cfg = compose(None, [f"+{group}={path.stem}"])
        OmegaConf.set_struct(cfg, False)
        context = {"grid": {**grid, "voxel_size": [0.2, 0.2, 0.1]}, "augment": {"group": {"yaw": [-1.0, 1.0]}}}
        context["deterministic"] = False
        cfg = OmegaConf.merge(context, cfg)
    node = cfg[group]
    for key in missing_keys(cfg):
        OmegaConf.update(cfg, key, str(tmp_path / "absent"))
    try:
        assert instantiate(node, _convert_="all") is not None
    except InstantiationException as error:
        # The data may be absent; an argument that the class does not know, or lacks, is a TypeError.
        assert isinstance(error.__cause__, FileNotFoundError), error
