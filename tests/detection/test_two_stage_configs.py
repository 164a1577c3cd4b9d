"""The published configs: every tensor's name and shape, initial values, and every number of the second stage."""

import math
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from equilidar.backbones import VoxelBackBone8x
from equilidar.detection.decode import BoxSelection
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.openpcdet_keys import load_openpcdet_state
from equilidar.detection.point_head import PointLoss
from equilidar.detection.pv_rcnn import PVRCNN
from equilidar.detection.roi_loss import RoILoss
from equilidar.detection.roi_targets import RoISampler
from equilidar.detection.second_stage import SecondStage
from equilidar.detection.voxel_rcnn import VoxelRCNN
from equilidar.structures import GridSpec

from .openpcdet_case import ANCHORS
from .openpcdet_two_stage_keys import Shapes, pv_rcnn, voxel_rcnn

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GRID = GridSpec.from_range([0, -3.2, -3, 6.4, 3.2, 1], [0.05, 0.05, 0.1])
NAMES = ("Car", "Pedestrian", "Cyclist")


@pytest.fixture(scope="module")
def models() -> dict[str, VoxelRCNN | PVRCNN]:
    torch.manual_seed(0)
    built = {}
    for name in ("voxel_rcnn", "pv_rcnn"):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose(f"detector/{name}")
        backbone = VoxelBackBone8x(GRID, 4, norm_momentum=0.01)
        built[name] = instantiate(cfg.detector, _convert_="all")(backbone=backbone, class_names=NAMES)
    return built


@pytest.mark.parametrize(("name", "shapes", "num"), [("voxel_rcnn", voxel_rcnn(3), 257), ("pv_rcnn", pv_rcnn(), 367)])
def test_openpcdet_state_dicts_fill_the_whole_model(models, name: str, shapes: Shapes, num: int) -> None:
    """367 entries are also what users count in OpenPCDet's PV-RCNN for KITTI (OpenPCDet#268)."""
    assert len(shapes) == num
    generator = torch.Generator().manual_seed(1)
    state = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    report = load_openpcdet_state(models[name], state)
    assert set(report.loaded) == set(shapes) - {"global_step"}
    ours = models[name].state_dict()
    for key, value in state.items():
        if key.split(".")[0] in ("roi_head", "pfe", "point_head"):
            assert torch.equal(ours[key], value.to(ours[key].dtype)), key


def test_second_stage_is_openpcdets(models) -> None:
    """ROI_HEAD and POST_PROCESSING of cfgs/kitti_models/{voxel_rcnn_car,pv_rcnn}.yaml."""
    train = BoxSelection(0.0, 0.8, 9000, 512)
    expected = {
        "voxel_rcnn": (SecondStage(train, BoxSelection(0.0, 0.7, 2048, 100)), BoxSelection(0.3, 0.1, 4096, 500)),
        "pv_rcnn": (SecondStage(train, BoxSelection(0.0, 0.7, 1024, 100)), BoxSelection(0.1, 0.1, 4096, 500)),
    }
    for name, model in models.items():
        assert (model.second, model.selection) == expected[name]
        assert model.second.sampler == RoISampler(128, 0.5, 0.8, 0.55, 0.1, 0.25, 0.75)
        assert model.second.roi_loss == RoILoss(1.0, 1.0, 1.0, 1 / 9)
        assert model.head.classes == ANCHORS and model.anchor_loss == AnchorLoss()
        assert model.roi_head.grid_size == 6
    assert models["pv_rcnn"].point_loss == PointLoss(1.0, 0.2, 0.25, 2.0)
    assert models["pv_rcnn"].pfe.num_keypoints == 2048


def test_pooling_is_openpcdets(models) -> None:
    voxel, keypoint = models["voxel_rcnn"], models["pv_rcnn"]
    assert voxel.roi_head.stages == ("conv2", "conv3", "conv4")
    for layer, radius in zip(voxel.roi_head.roi_grid_pool_layers, (0.4, 0.8, 1.6), strict=True):
        (scale,) = layer.scales
        assert (scale.max_range, scale.radius, scale.num) == ((4, 4, 4), radius, 16)
    assert keypoint.pfe.stages == ("conv1", "conv2", "conv3", "conv4")
    layers = [keypoint.pfe.SA_rawpoints, *keypoint.pfe.SA_layers, keypoint.roi_head.roi_grid_pool_layer]
    radii = [[ball.radius for ball in layer.balls] for layer in layers]
    assert radii == [[0.4, 0.8], [0.4, 0.8], [0.8, 1.2], [1.2, 2.4], [2.4, 4.8], [0.8, 1.6]]
    numbers = [[ball.num for ball in layer.balls] for layer in layers]
    assert numbers == [[16, 16], [16, 16], [16, 32], [16, 32], [16, 32], [16, 16]]


def test_dropout_and_normalisation_are_openpcdets(models) -> None:
    """Torch's own eps and momentum in the second stage; 0.3 dropped, once in each stack of two layers."""
    for name, stacks in (
        ("voxel_rcnn", ("shared_fc_layer", "cls_fc_layers", "reg_fc_layers")),
        ("pv_rcnn", ("shared_fc_layer", "cls_layers", "reg_layers")),
    ):
        model = models[name]
        for stack in stacks:
            layers = list(getattr(model.roi_head, stack))
            assert [place for place, layer in enumerate(layers) if isinstance(layer, nn.Dropout)] == [3]
            assert layers[3].p == 0.3
        parts = [model.roi_head] if name == "voxel_rcnn" else [model.roi_head, model.pfe, model.point_head]
        norms = [m for part in parts for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}
        first = [*model.backbone.modules(), *model.neck.modules()]
        norms = [m for m in first if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("name", ["voxel_rcnn", "pv_rcnn"])
def test_initial_values_are_openpcdets(name: str) -> None:
    """Xavier in the stacks, Kaiming in the pooling (PV-RCNN's head: Xavier there, too), 0.001 for residuals."""
    torch.manual_seed(2)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(f"detector/{name}")
    model = instantiate(cfg.detector, _convert_="all")(backbone=VoxelBackBone8x(GRID, 4), class_names=NAMES)

    def expect(weight: torch.Tensor, std: float, slack: float = 0.1) -> None:
        assert weight.std().item() == pytest.approx(std, rel=slack) and abs(weight.mean().item()) < 0.2 * std

    def kaiming(weight: torch.Tensor) -> float:
        return math.sqrt(2 / weight.shape[1])

    def xavier(weight: torch.Tensor) -> float:
        return math.sqrt(2 / (weight.shape[0] + weight.shape[1]))

    head = model.roi_head
    expect(head.shared_fc_layer[4].weight, xavier(head.shared_fc_layer[4].weight), 0.02)
    if isinstance(model, VoxelRCNN):
        expect(
            head.roi_grid_pool_layers[1].mlps_in[0][0].weight,
            kaiming(head.roi_grid_pool_layers[1].mlps_in[0][0].weight),
        )
        expect(head.cls_pred_layer.weight, 0.01)
        expect(head.reg_pred_layer.weight, 0.001)
        assert not head.cls_pred_layer.bias.any() and not head.reg_pred_layer.bias.any()
    else:
        weight = head.roi_grid_pool_layer.mlps[0][0].weight
        expect(weight, xavier(weight))
        expect(head.reg_layers[7].weight, 0.001)
        expect(head.cls_layers[7].weight, xavier(head.cls_layers[7].weight), 0.2)
        assert not head.cls_layers[7].bias.any() and not head.reg_layers[7].bias.any()
        weight = model.pfe.SA_layers[2].mlps[0][3].weight
        expect(weight, kaiming(weight))
        # torch's own for linear layers: uniform within 1 / sqrt(inputs).
        weight = model.point_head.cls_layers[0].weight
        expect(weight, 1 / math.sqrt(3 * weight.shape[1]), 0.02)


@pytest.mark.parametrize("name", ["voxel_rcnn", "pv_rcnn"])
def test_the_selection_of_a_config_reaches_the_detector(name: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(f"detector/{name}", ["detector.selection.score_threshold=0.7"])
    built = instantiate(cfg.detector, _convert_="all")(backbone=VoxelBackBone8x(GRID, 4), class_names=NAMES)
    assert built.selection.score_threshold == 0.7
