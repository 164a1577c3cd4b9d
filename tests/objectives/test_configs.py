"""Every config of the groups augment, flow and objective builds what it names."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from equilidar.augment.pipeline import ViewPipeline
from equilidar.backbones.feature_info import FeatureInfo
from equilidar.flow import FlowEstimator, RigidFlow, check_label_free, precompute
from equilidar.flow.feedforward import FlowNetworkOrigin, save_flow_network
from equilidar.flow.flow_network import FlowNetwork
from equilidar.flow.flow_pillars import FlowNetworkShape
from equilidar.objectives import CompositeObjective

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FEATURES = FeatureInfo({"conv4": 64, "out": 128}, {"conv4": (8, 8, 8), "out": (16, 8, 8)}, 256, (8, 8), (8, 8))


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def composed(*overrides: str):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(overrides=["+grid=kitti", "+augment=essl3d", *overrides])


@pytest.mark.parametrize("name", ["disc", "essl3d", "front_view"])
def test_augment(name: str):
    pipeline = instantiate(composed("augment=" + name).augment, _convert_="all")
    assert isinstance(pipeline, ViewPipeline) and not pipeline.crop_then_rotate


@pytest.mark.parametrize("name", names("flow"))
def test_flow(name: str, tmp_path: Path):
    class NoPairs:
        keys = ()

        def __getitem__(self, index: int):
            raise IndexError

    precompute(NoPairs(), RigidFlow(), tmp_path)
    network = tmp_path / "network.safetensors"
    save_flow_network(network, FlowNetwork(FlowNetworkShape(width=2)), FlowNetworkOrigin("nearest", False, {}))
    needed = {"precomputed": [f"flow.directory={tmp_path}"], "feedforward": [f"flow.path={network}"]}
    extra = needed.get(name, [])
    estimator = instantiate(composed("+flow=" + name, *extra).flow, _convert_="all")
    assert isinstance(estimator, FlowEstimator)
    if estimator.from_labels:
        with pytest.raises(ValueError, match="allow_labels"):
            check_label_free(estimator)
        allowed = instantiate(composed("+flow=" + name, "flow.allow_labels=true").flow, _convert_="all")
        check_label_free(allowed)
    else:
        check_label_free(estimator)


@pytest.mark.parametrize("name", [*names("objective"), "[rotation,point_contrast]"])
def test_objective(name: str):
    partials = instantiate(composed("+objective=" + name).objective, _convert_="all")
    composite = CompositeObjective.from_partials(partials, features=FEATURES)
    assert set(composite.objectives) == set(partials)
    if "rotation" in partials:
        assert composite.objectives["rotation"].yaw == pytest.approx((-1.5708, 1.5708), abs=1e-4)


def test_the_printed_coefficients_are_the_papers():
    printed = composed("+objective=essl3d_printed").objective
    assert [printed[name].weight for name in ("point_contrast", "rotation", "flow_equivariance")] == [0.01, 1.0, 300.0]
    assert printed.point_contrast.reduction == "sum" and printed.flow_equivariance.normaliser == "HW"
    assert printed.flow_equivariance.form == "l2"
