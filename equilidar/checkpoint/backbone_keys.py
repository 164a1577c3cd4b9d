"""How other code bases name the tensors of the sparse backbones.

OpenPCDet (commit 8cacccec, `spconv_backbone.py`) has our names below `backbone_3d`, pillar encoders below `vfe`;
whatever wraps them (module., model., teacher.) is found by `wrapper_of`. The others:

    mmdetection3d >= 1.0 (`sparse_encoder.py`), plain      encoder_layers.encoder_layerN.I   convN.I
    mmdetection3d >= 1.0, block_type basicblock            the strided convolution is the last item of layers 1 to 3,
                                                           not the first of the next; no bias in residual blocks
    det3d, CenterPoint (`scn.py`, SpMiddleResNetFHD)       strided convolutions lie flat in their stage (conv2.0, .1),
                                                           blocks at .3 and .4; conv_out is called extra_conv
"""

from torch import nn

from equilidar.checkpoint.key_map import KeyMap, Rename

# Parts that pretraining methods in OpenPCDet's layout hang into their backbones: not of the network that is handed on.
_BEV_MAE = ("decoder", "coor_conv", "num_conv", "mask_token")
_OCCUPANCY_MAE = ("deconv1", "deconv2", "deconv3")

_SAME = Rename("", "")
_MM = "encoder_layers.encoder_layer"

_OTHER_MODULES = ("map_to_bev_module", "pfe", "backbone_2d", "dense_head", "point_head", "roi_head")

OPENPCDET = KeyMap("OpenPCDet", (_SAME,), ("global_step", *_BEV_MAE, *_OCCUPANCY_MAE, *_OTHER_MODULES))
"""Below `backbone_3d`, or at the top of a state for pillar encoders."""
OPENPCDET_FILE = KeyMap("OpenPCDet", (Rename("backbone_3d.", ""), Rename("vfe.", "vfe.")), ("global_step",))
"""From the top of a state, for export."""

_MM_PLAIN = KeyMap("mmdetection3d", (_SAME, *(Rename(f"{_MM}{n}.", f"conv{n}.") for n in (1, 2, 3, 4))))
_MM_RESIDUAL = KeyMap(
    "mmdetection3d",
    (
        _SAME,
        *(Rename(f"{_MM}1.{i}.", f"conv1.{i}.") for i in (0, 1)),
        *(Rename(f"{_MM}{n}.{i}.", f"conv{n}.{i + 1}.") for n in (2, 3, 4) for i in (0, 1)),
        *(Rename(f"{_MM}{n}.2.", f"conv{n + 1}.0.") for n in (1, 2, 3)),
    ),
)
_DET3D_RESIDUAL = KeyMap(
    "det3d",
    (
        _SAME,
        *(Rename(f"conv{n}.{i}.", f"conv{n}.0.{i}.") for n in (2, 3, 4) for i in (0, 1)),
        *(Rename(f"conv{n}.{i + 2}.", f"conv{n}.{i}.") for n in (2, 3, 4) for i in (1, 2)),
        Rename("extra_conv.", "conv_out."),
    ),
)

SOURCES = ("openpcdet", "mmdet3d", "det3d")


def backbone_keys(source: str, backbone: nn.Module) -> KeyMap:
    """Return the table for a backbone; names there are relative to the backbone.

    Args:
        source: openpcdet, mmdet3d or det3d.
        backbone: what the tensors are for.

    Raises:
        ValueError: unknown source, or one that has no such backbone.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join((*SOURCES, 'equilidar'))}, got {source!r}")
    if source == "openpcdet":
        return OPENPCDET
    names = backbone.state_dict().keys()
    if "conv_input.0.weight" not in names:
        raise ValueError(f"source={source}: only its sparse backbones are known, not a {type(backbone).__name__}")
    is_residual = any(name.startswith("conv1.0.conv1") for name in names)
    if source == "mmdet3d":
        return _MM_RESIDUAL if is_residual else _MM_PLAIN
    if not is_residual:
        raise ValueError(
            f"source=det3d: its SpMiddleResNetFHD is a VoxelResBackBone8x, not a {type(backbone).__name__}; choose "
            "backbone=voxel_residual (SpMiddleFHD has more layers than any backbone here)"
        )
    return _DET3D_RESIDUAL
