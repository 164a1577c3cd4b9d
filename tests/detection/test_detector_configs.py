from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from equilidar.backbones import PillarEncoder, VoxelBackBone8x
from equilidar.detection.center_decode import CenterSelection
from equilidar.detection.center_losses import CenterLoss
from equilidar.detection.center_targets import CenterAssignment
from equilidar.detection.decode import BoxSelection
from equilidar.detection.detector import Detector
from equilidar.detection.losses import AnchorLoss
from equilidar.structures import GridSpec, PointCloudBatch

from .openpcdet_case import ANCHORS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GRID = GridSpec.from_range([0, -6.4, -3, 12.8, 6.4, 1], [0.1, 0.1, 0.1])
# The classes that datasets of this package have, one after another.
NAMES = (
    *("Car", "Pedestrian", "Cyclist", "Vehicle"),
    *("car", "truck", "bus", "trailer", "construction_vehicle", "pedestrian", "motorcycle", "bicycle"),
    *("traffic_cone", "barrier"),
)
PILLARS = GridSpec.from_range([0, -6.4, -3, 12.8, 6.4, 1], [0.1, 0.1, 4])


def build(name: str) -> Detector:
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


def test_centerpoint_is_openpcdets() -> None:
    """cfgs/nuscenes_models/cbgs_voxel0075_res3d_centerpoint.yaml and cfgs/waymo_models/centerpoint.yaml."""
    model = build("centerpoint_nuscenes")
    one = ("car", "truck", "construction_vehicle", "bus", "trailer")
    two = ("barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone")
    assert model.classes == one + two and [len(task) for task in model.head.layout.tasks] == [1, 2, 2, 1, 2, 2]
    assert model.assignment == CenterAssignment(overlap=0.1, min_radius=2)
    assert model.center_loss == CenterLoss(1.0, 0.25, (1.0,) * 6 + (0.2, 0.2, 1.0, 1.0))
    limits = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    selection = model.selection
    assert (selection.score_threshold, tuple(selection.center_range), selection.nms_iou) == (0.1, limits, 0.2)
    assert (selection.max_candidates, selection.max_boxes, selection.suppression) == (500, 83, "rotated")
    squares = [4, 12, 10, 1, 0.85, 0.175]
    assert [radius**2 for radius in selection.circle_radii] == pytest.approx(squares, rel=1e-4)
    assert model.neck.out_channels == 512 and model.head.shared_conv[0].weight.shape == (64, 512, 3, 3)

    model = build("centerpoint_waymo")
    assert model.head.layout.tasks == (("Vehicle", "Pedestrian", "Cyclist"),) and model.head.layout.num_codes == 8
    assert model.assignment == CenterAssignment(overlap=0.1, min_radius=2)
    assert model.center_loss == CenterLoss(1.0, 2.0, (1.0,) * 8)
    limits = (-75.2, -75.2, -2.0, 75.2, 75.2, 4.0)
    assert model.selection == CenterSelection(0.1, list(limits), 500, "rotated", 0.7, None, 500)


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
