"""OpenPCDet's names of a whole detector (commit 8cacccec, `Detector3DTemplate`).

SECOND, CenterPoint, PointPillars, Voxel R-CNN and PV-RCNN have its names inside their modules, so that prefixes tell
everything. In each block of its BEV network the first layer is a padding, here the convolution's own.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from equilidar.checkpoint.importing import ImportSettings, import_state, input_layer
from equilidar.checkpoint.key_map import KeyMap, Rename
from equilidar.checkpoint.load_report import LoadReport

DETECTOR_KEYS = KeyMap(
    "OpenPCDet",
    (
        Rename("vfe.", "backbone.vfe."),
        Rename("backbone_3d.", "backbone."),
        Rename("backbone_2d.", "neck.", padding_layers=1),
        Rename("dense_head.", "head."),
        Rename("pfe.", "pfe."),
        Rename("point_head.", "point_head."),
        Rename("roi_head.", "roi_head."),
    ),
    nothing_here=("global_step",),
)


def our_key(key: str) -> str | None:
    """Return the name here of an OpenPCDet key; None for keys that mean nothing here.

    Raises:
        ValueError: the key belongs to no part of a detector.
    """
    name = DETECTOR_KEYS.ours(key)
    if name is None and not DETECTOR_KEYS.means_nothing(key):
        raise ValueError(f"OpenPCDet key {key} belongs to no part of a detector")
    return name


def load_openpcdet_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str = "OpenPCDet state",
    settings: ImportSettings | None = None,
) -> LoadReport:
    """Copy the weights of an OpenPCDet detector into ours, and print what became of each.

    Args:
        model: a detector of the same parts and sizes.
        state: `model_state` of an OpenPCDet checkpoint, wrapped or not.
        source: name for messages.
        settings: layout and the like, where they are not clear.

    Raises:
        ValueError: a key is unknown, missing or of another shape; the model is unchanged then.
    """
    assert isinstance(model.backbone, nn.Module)
    first = input_layer(model.backbone, "backbone.")
    return import_state(model, state, DETECTOR_KEYS, first, source, settings)
