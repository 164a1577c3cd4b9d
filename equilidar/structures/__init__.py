"""What is passed around; imports nothing else of the package."""

from equilidar.structures.boxes import Boxes3D
from equilidar.structures.features import BackboneFeatures, BEVCells, LossTerms, PairFeatures
from equilidar.structures.grid import GridSpec
from equilidar.structures.labelled import (
    Detections,
    LabelledBatch,
    LabelledPair,
    LabelledSweep,
    ObjectAnnotations,
)
from equilidar.structures.points import PointCloudBatch
from equilidar.structures.sweeps import FlowField, SensorContract, Sweep, SweepPair, SweepPairBatch
from equilidar.structures.transform import Affine3
from equilidar.structures.views import TransformDraw, View, ViewPair, WarpedSource
from equilidar.structures.voxels import BEVMap, SparseVoxels

__all__ = [
    "Affine3",
    "BEVCells",
    "BEVMap",
    "BackboneFeatures",
    "Boxes3D",
    "Detections",
    "FlowField",
    "GridSpec",
    "LabelledBatch",
    "LabelledPair",
    "LabelledSweep",
    "LossTerms",
    "ObjectAnnotations",
    "PairFeatures",
    "PointCloudBatch",
    "SensorContract",
    "SparseVoxels",
    "Sweep",
    "SweepPair",
    "SweepPairBatch",
    "TransformDraw",
    "View",
    "ViewPair",
    "WarpedSource",
]
