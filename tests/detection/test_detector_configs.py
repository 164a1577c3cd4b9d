from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from equilidar.backbones import PillarEncoder, VoxelBackBone8x
from equilidar.detection.decode import BoxSelection
from equilidar.detection.losses import AnchorLoss
from equilidar.detection.second import SECOND
from equilidar.structures import GridSpec, PointCloudBatch

from .openpcdet_case import ANCHORS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GRID = GridSpec.from_range([0, -6.4, -3, 12.8, 6.4, 1], [0.1, 0.1, 0.1])
PILLARS = GridSpec.from_range([0, -6.4, -3, 12.8, 6.4, 1], [0.1, 0.1, 4])
NAMES = ("Car", "Pedestrian", "Cyclist")


def build(name: str) -> SECOND:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose(f"detector/{name}")
    backbone = PillarEncoder(PILLARS, 4) if name.startswith("pointpillars") else VoxelBackBone8x(GRID, 4)
    return instantiate(cfg.detector, _convert_="all")(backbone=backbone, class_names=NAMES)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "detector").glob("*.yaml")))
def test_each_config_is_a_detector(name: str) -> None:
    model = build(name).eval()
    points = PointCloudBatch(torch.rand(50, 3), torch.zeros(50, 1), torch.tensor([0, 50]), ("intensity",))
    with torch.no_grad():
        detections = model.decode(model(points))
    assert detections.boxes.batch_size == 1


def test_second_is_openpcdets() -> None:
    model = build("second")
    assert model.head.classes == ANCHORS
    assert model.anchor_loss == AnchorLoss() and model.selection == BoxSelection()
    assert model.neck.out_channels == 512 and model.neck.out_shape == (16, 16)


def test_pointpillars_is_openpcdets() -> None:
    model = build("pointpillars")
    assert model.head.classes == ANCHORS
    assert model.anchor_loss == AnchorLoss() and model.selection == BoxSelection()
    assert model.neck.out_channels == 384 and model.neck.out_shape == (64, 64)  # anchors at stride 2
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("finetune", overrides=["backbone=pillar", "grid=kitti_pillars"])
    backbone = instantiate(cfg.backbone, _convert_="all")(in_channels=4)
    assert backbone.grid.shape == (1, 496, 432) and backbone.arguments == PillarEncoder(PILLARS, 4).arguments
    assert (backbone.max_points, backbone.max_pillars_train, backbone.max_pillars) == (32, 16_000, 40_000)
