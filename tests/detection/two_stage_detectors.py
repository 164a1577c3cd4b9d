"""Two-stage detectors small enough for tests."""

from collections.abc import Callable
from functools import partial

import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.detection.decode import BoxSelection
from equilidar.detection.neck import BEVNeck
from equilidar.detection.point_head import PointHead
from equilidar.detection.pv_rcnn import PVRCNN, build_pv_rcnn
from equilidar.detection.pv_rcnn_head import KeypointRoIHead
from equilidar.detection.roi_targets import RoISampler
from equilidar.detection.second_stage import SecondStage
from equilidar.detection.set_abstraction import Ball
from equilidar.detection.voxel_pooling import VoxelNeighbors
from equilidar.detection.voxel_rcnn import VoxelRCNN, build_voxel_rcnn
from equilidar.detection.voxel_rcnn_head import VoxelRoIHead
from equilidar.detection.voxel_set_abstraction import VoxelSetAbstraction
from equilidar.structures import GridSpec

from .openpcdet_case import ANCHORS
from .test_second import NAMES, neck

GRID = GridSpec.from_range([0, -9.6, -3, 19.2, 9.6, 1], [0.2, 0.2, 0.1])
SECOND_STAGE = SecondStage(BoxSelection(0.0, 0.8, 512, 64), BoxSelection(0.0, 0.7, 256, 32), RoISampler(num=8))
STACKS = {"shared": (32, 32), "classification": (32, 32), "regression": (32, 32), "dropout": 0.1}


def voxel_rcnn(grid: GridSpec = GRID, width: float = 0.5, neck: Callable[..., BEVNeck] = neck) -> VoxelRCNN:
    torch.manual_seed(0)
    stages = {
        "conv2": [VoxelNeighbors((2, 2, 2), 0.8, 8, (16, 16))],
        "conv4": [VoxelNeighbors((2, 2, 2), 3.2, 8, (16, 16))],
    }
    roi_head = partial(VoxelRoIHead, stages=stages, grid_size=3, **STACKS)
    backbone = VoxelBackBone8x(grid, 4, width=width)
    return build_voxel_rcnn(backbone, NAMES, neck=neck, anchors=ANCHORS, roi_head=roi_head, second=SECOND_STAGE)


def pv_rcnn(grid: GridSpec = GRID, width: float = 0.5, neck: Callable[..., BEVNeck] = neck) -> PVRCNN:
    torch.manual_seed(0)
    stages = {"conv2": [Ball(0.8, 8, (16,))], "conv4": [Ball(3.2, 8, (16,))]}
    pfe = partial(
        VoxelSetAbstraction, raw_points=[Ball(0.6, 8, (8, 8))], stages=stages, num_keypoints=512, out_channels=32
    )
    roi_head = partial(KeypointRoIHead, balls=[Ball(0.6, 8, (16,)), Ball(1.2, 8, (16,))], grid_size=3, **STACKS)
    backbone = VoxelBackBone8x(grid, 4, width=width)
    return build_pv_rcnn(
        backbone,
        NAMES,
        neck=neck,
        anchors=ANCHORS,
        pfe=pfe,
        point_head=partial(PointHead, channels=(32,)),
        roi_head=roi_head,
        second=SECOND_STAGE,
    )


DETECTORS = {"voxel_rcnn": voxel_rcnn, "pv_rcnn": pv_rcnn}
