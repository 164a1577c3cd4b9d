"""Every grid fits every backbone of its kind, and both are built from their files as the tools build them."""

from pathlib import Path

import hydra.utils
import pytest
from omegaconf import OmegaConf

from equilidar.backbones import Backbone
from equilidar.structures import GridSpec

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GRIDS = sorted((CONFIGS / "grid").glob("*.yaml"))
BACKBONES = sorted((CONFIGS / "backbone").glob("*.yaml"))


def of_pillars(path: Path) -> bool:
    """Grids of pillars have one voxel along z, and go with backbones of pillars."""
    return "pillar" in path.stem


@pytest.mark.parametrize(
    ("grid", "backbone"),
    [
        pytest.param(grid, backbone, id=f"{backbone.stem}-{grid.stem}")
        for backbone in BACKBONES
        for grid in GRIDS
        if of_pillars(grid) == of_pillars(backbone)
    ],
)
def test_builds(grid, backbone):
    cfg = OmegaConf.create({"grid": OmegaConf.load(grid), "backbone": OmegaConf.load(backbone)})
    built = hydra.utils.instantiate(cfg, _convert_="all")
    assert isinstance(built["grid"], GridSpec)
    network = built["backbone"](in_channels=4)
    assert isinstance(network, Backbone) and network.grid == built["grid"]


def test_there_are_grids_for_the_front_view_and_for_the_whole_turn():
    grids = {path.stem: hydra.utils.instantiate(OmegaConf.load(path)) for path in GRIDS}
    for front, circle in (("kitti", "kitti_circle"), ("sim_small", "sim_small_circle")):
        assert grids[front].low[0] == 0 and grids[circle].low[0] == -grids[circle].high[0]
        assert grids[front].voxel_size == grids[circle].voxel_size
