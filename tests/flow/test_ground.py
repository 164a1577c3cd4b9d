import numpy as np
import pytest
import torch

from equilidar.data.simulator import SimulatedPairs
from equilidar.flow.ground import GroundSettings, height_above_ground

GROUND = (0, 1, 2)  # road, sidewalk, terrain


def offsets_of(*clouds: torch.Tensor) -> torch.Tensor:
    return torch.tensor([0, *np.cumsum([len(cloud) for cloud in clouds])])


def street(slope: float = 0.0, level: float = -1.7) -> tuple[torch.Tensor, torch.Tensor]:
    """A plane that rises along x, with a car-sized block on it; returns points and their true heights."""
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(20000, 2, generator=generator) * 60 - 30
    block = torch.tensor([8.0, 4.0]) + torch.rand(500, 2, generator=generator) * torch.tensor([4.0, 1.8])
    above = torch.cat([torch.zeros(len(xy)), 0.3 + 1.2 * torch.rand(len(block), generator=generator)])
    xy = torch.cat([xy, block])
    hidden = ((xy > torch.tensor([8.0, 4.0])) & (xy < torch.tensor([12.0, 5.8]))).all(1) & (above == 0)
    xyz = torch.cat([xy, (level + slope * xy[:, :1]) + above[:, None]], 1)
    return xyz[~hidden], above[~hidden]


@pytest.mark.parametrize("slope", [0.0, 0.08, -0.1])
@pytest.mark.parametrize("level", [-1.7, 0.0, 5.0])
def test_heights_are_those_above_a_sloping_plane_whatever_the_sensors_height(slope: float, level: float):
    xyz, true = street(slope, level)
    height = height_above_ground(xyz, offsets_of(xyz))
    # Under the block the plane is bridged, and leans towards level.
    assert (height - true).abs().max() < 0.2
    assert (height - true).abs().median() < 0.03


@pytest.mark.parametrize("seed", [3, 8])
def test_ground_of_simulated_streets_is_told_from_objects(seed: int):
    pairs = SimulatedPairs({"name": "hdl64e", "azimuth_steps": 720, "beam_stride": 2}, 2, 1, seed)
    for index in range(2):
        sweep = pairs.simulate(index)
        xyz = torch.from_numpy(sweep.xyz)
        height = height_above_ground(xyz, offsets_of(xyz)).numpy()
        ground = np.isin(sweep.semantic, GROUND)
        assert (np.abs(height[ground]) < 0.2).mean() > 0.99
        assert (height[~ground] > 0.2).mean() > 0.8  # the rest are feet, wheels, kerbside weeds


def test_sample_ground_of_argoverse2_is_told_from_objects(samples):
    feather = pytest.importorskip("pyarrow.feather")
    files = sorted((samples / "argoverse2").rglob("flow_labels.feather"))
    if not files:
        pytest.skip("no flow_labels.feather in the samples")
    for path in files:
        sweep = feather.read_table(sorted((path.parent / "sensors" / "lidar").glob("*.feather"))[0])
        xyz = torch.from_numpy(np.stack([sweep[axis].to_numpy() for axis in "xyz"], 1).astype(np.float32))
        height = height_above_ground(xyz, offsets_of(xyz)).numpy()
        table = feather.read_table(path)
        ground, boxed = table["is_ground_0"].to_numpy(), table["classes"].to_numpy() > 0
        assert (np.abs(height[ground]) < 0.3).mean() > 0.97
        assert (height[boxed & ~ground] > 0.2).mean() > 0.9


def test_each_item_has_its_own_ground_and_empty_items_and_odd_points_do_no_harm():
    low, _ = street(level=-1.7)
    high, true = street(level=3.0)
    odd = torch.tensor([[float("nan"), 0.0, 0.0], [500.0, 0.0, 0.0]])
    cloud = torch.cat([low, high, odd])
    offsets = torch.tensor([0, 0, len(low), len(cloud), len(cloud)])
    height = height_above_ground(cloud, offsets)
    assert (height[len(low) : -2] - true).abs().max() < 0.1
    assert height[-2:].isnan().all()
    assert height_above_ground(torch.zeros(0, 3), torch.tensor([0, 0])).shape == (0,)
    lone = height_above_ground(odd, torch.tensor([0, 2]))
    assert lone.isnan().all()


def test_an_echo_from_below_the_ground_does_not_lower_it():
    xyz, true = street()
    echo = torch.tensor([[5.0, -5.0, -6.0], [-10.0, 3.0, -4.0]])
    cloud = torch.cat([xyz, echo])
    height = height_above_ground(cloud, offsets_of(cloud))
    assert (height[:-2] - true).abs().max() < 0.1
    assert height[-2:].max() < -2


@pytest.mark.parametrize("arguments", [{"cell": 0.0}, {"slope": -1.0}, {"reach": 300.0}])
def test_impossible_settings_are_refused(arguments: dict):
    with pytest.raises(ValueError, match="ground"):
        GroundSettings(**arguments)
