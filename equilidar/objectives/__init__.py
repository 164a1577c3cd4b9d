"""Pretraining losses: one file per objective; typed pairs in, named terms out."""

from equilidar.objectives.composite import CompositeObjective
from equilidar.objectives.flow_equivariance import FlowEquivariance
from equilidar.objectives.point_contrast import PointContrast
from equilidar.objectives.protocol import Objective
from equilidar.objectives.rotation import RotationClassification

__all__ = ["CompositeObjective", "FlowEquivariance", "Objective", "PointContrast", "RotationClassification"]
