"""Networks on disk: saved with what they are, loaded strictly; weights of other code bases in and out."""

from equilidar.checkpoint.handoff import SavedBackbone, load_backbone, read_backbone, save_backbone
from equilidar.checkpoint.identity import BackboneIdentity
from equilidar.checkpoint.load_report import LoadReport
from equilidar.checkpoint.openpcdet import load_openpcdet_state, to_openpcdet_state

__all__ = [
    "BackboneIdentity",
    "LoadReport",
    "SavedBackbone",
    "load_backbone",
    "load_openpcdet_state",
    "read_backbone",
    "save_backbone",
    "to_openpcdet_state",
]
