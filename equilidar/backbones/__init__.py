"""Backbones: from voxels to features by stage."""

from equilidar.backbones.feature_info import Backbone, FeatureInfo
from equilidar.backbones.pillar import PillarEncoder
from equilidar.backbones.voxel_plain import VoxelBackBone8x
from equilidar.backbones.voxel_residual import VoxelResBackBone8x

__all__ = ["Backbone", "FeatureInfo", "PillarEncoder", "VoxelBackBone8x", "VoxelResBackBone8x"]
