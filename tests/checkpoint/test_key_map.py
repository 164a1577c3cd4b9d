"""Tables of names are bijections, wrappers are found, and several networks in a file ask for a choice."""

import pytest

from equilidar.checkpoint.key_map import KeyMap, Rename, wrapper_of
from equilidar.detection.openpcdet_keys import DETECTOR_KEYS, our_key

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def norm(name):
    return [f"{name}.{part}" for part in NORM]


def pair(conv, bn, bias=False):
    return [f"{conv}.weight", *([f"{conv}.bias"] if bias else []), *norm(bn)]


def sequence(name, places, last=None):
    """Layers without bias and their norms at (conv, norm) places, and a last one with bias."""
    keys = [key for place in places for key in pair(f"{name}.{place}", f"{name}.{place + 1}")]
    return keys if last is None else [*keys, f"{name}.{last}.weight", f"{name}.{last}.bias"]


def plain_backbone():
    blocks = ["conv_input", "conv1.0", *(f"conv{s}.{i}" for s in (2, 3, 4) for i in range(3)), "conv_out"]
    return [key for block in blocks for key in pair(f"backbone_3d.{block}.0", f"backbone_3d.{block}.1")]


def residual_backbone():
    keys = pair("backbone_3d.conv_input.0", "backbone_3d.conv_input.1")
    for stage in (1, 2, 3, 4):
        name = f"backbone_3d.conv{stage}"
        keys += pair(f"{name}.0.0", f"{name}.0.1") if stage > 1 else []
        for block in (0, 1) if stage == 1 else (1, 2):
            keys += [k for n in (1, 2) for k in pair(f"{name}.{block}.conv{n}", f"{name}.{block}.bn{n}", bias=True)]
    return keys + pair("backbone_3d.conv_out.0", "backbone_3d.conv_out.1")


def bev_network(layers):
    keys = []
    for level, count in enumerate(layers):
        keys += sequence(f"backbone_2d.blocks.{level}", [1 + 3 * i for i in range(count + 1)])
    return keys + [key for level in range(len(layers)) for key in sequence(f"backbone_2d.deblocks.{level}", [0])]


def anchor_head():
    return [f"dense_head.conv_{name}.{part}" for name in ("cls", "box", "dir_cls") for part in ("weight", "bias")]


def msg(name, scales=2):
    return [key for scale in range(scales) for key in sequence(f"{name}.mlps.{scale}", [0, 3])]


def center_head(tasks):
    keys = [*pair("dense_head.shared_conv.0", "dense_head.shared_conv.1", bias=True)]
    for task in range(tasks):
        for part in ("center", "center_z", "dim", "rot", "vel", "hm"):
            name = f"dense_head.heads_list.{task}.{part}"
            keys += [*pair(f"{name}.0.0", f"{name}.0.1", bias=True), f"{name}.1.weight", f"{name}.1.bias"]
    return keys


SECOND = ["global_step", *plain_backbone(), *bev_network([5, 5]), *anchor_head()]
PV_RCNN = [
    "global_step", *plain_backbone(),
    *(key for source in range(4) for key in msg(f"pfe.SA_layers.{source}")), *msg("pfe.SA_rawpoints"),
    *sequence("pfe.vsa_point_feature_fusion", [0]),
    *bev_network([5, 5]), *anchor_head(), *sequence("point_head.cls_layers", [0, 3], 6),
    *msg("roi_head.roi_grid_pool_layer"), *sequence("roi_head.shared_fc_layer", [0, 4]),
    *sequence("roi_head.cls_layers", [0, 4], 7), *sequence("roi_head.reg_layers", [0, 4], 7),
]  # fmt: skip
VOXEL_RCNN = [
    "global_step", *plain_backbone(), *bev_network([5, 5]), *anchor_head(),
    *(f"roi_head.roi_grid_pool_layers.{i}.{mlp}.{n}.{part}.{p}" for i in range(3) for mlp in ("mlps_in", "mlps_pos")
      for n in (0,) for part, ps in (("0", ("weight",)), ("1", NORM)) for p in ps),
    *sequence("roi_head.shared_fc_layer", [0, 4]), *sequence("roi_head.cls_fc_layers", [0, 4]),
    "roi_head.cls_pred_layer.weight", "roi_head.cls_pred_layer.bias", *sequence("roi_head.reg_fc_layers", [0, 4]),
    "roi_head.reg_pred_layer.weight", "roi_head.reg_pred_layer.bias",
]  # fmt: skip
POINTPILLARS = [
    "global_step", "vfe.pfn_layers.0.linear.weight", *norm("vfe.pfn_layers.0.norm"), *bev_network([3, 5, 5]),
    *anchor_head(),
]  # fmt: skip
CENTERPOINT = ["global_step", *residual_backbone(), *bev_network([5, 5]), *center_head(6)]
DETECTORS = {
    "SECOND": (SECOND, 163),
    "PV-RCNN": (PV_RCNN, 367),
    "Voxel R-CNN": (VOXEL_RCNN, None),
    "PointPillars": (POINTPILLARS, 127),
    "CenterPoint": (CENTERPOINT, None),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_each_openpcdet_key_has_a_name_here_and_comes_back(name):
    keys, count = DETECTORS[name]
    assert len(set(keys)) == len(keys) and count in (None, len(keys))
    ours = {key: our_key(key) for key in keys}
    assert [key for key, value in ours.items() if value is None] == ["global_step"]
    names = [value for value in ours.values() if value is not None]
    assert len(set(names)) == len(names)
    assert all(DETECTOR_KEYS.theirs(value) == key for key, value in ours.items() if value is not None)
    parts = {"backbone", "neck", "head", "pfe", "point_head", "roi_head"}
    assert {value.partition(".")[0] for value in names} <= parts


def test_padding_layers_of_the_bev_network_are_counted_out():
    assert our_key("backbone_2d.blocks.0.1.weight") == "neck.blocks.0.0.weight"
    assert our_key("backbone_2d.blocks.1.17.running_var") == "neck.blocks.1.16.running_var"
    assert our_key("backbone_2d.deblocks.1.1.bias") == "neck.deblocks.1.1.bias"
    with pytest.raises(ValueError, match=r"rfe\.x belongs to no part"):
        our_key("rfe.x")


def test_the_longest_prefix_decides():
    table = KeyMap("x", (Rename("", ""), Rename("a.", "b."), Rename("a.0.", "c.")), ("count",))
    assert [table.ours(key) for key in ("z", "a.1", "a.0.w", "count")] == ["z", "b.1", "c.w", None]
    assert [table.theirs(name) for name in ("z", "b.1", "c.w")] == ["z", "a.1", "a.0.w"]
    assert KeyMap("y", (Rename("a.", "b."),)).theirs("z") is None


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "backbone.model.backbone_3d.", "module.backbone_3d.", "pts_middle_encoder.", "teacher."],
)
def test_wrappers_are_found(prefix):
    keys = [f"{prefix}conv_input.0.weight", f"{prefix}conv1.0.0.weight", "global_step", "xconv_input.0.weight"]
    assert wrapper_of(keys, "conv_input.0.weight", "file") == prefix


def test_several_networks_ask_for_a_choice():
    keys = [f"{who}.backbone_3d.conv_input.0.weight" for who in ("student", "teacher")]
    with pytest.raises(ValueError, match=r"'student\.backbone_3d\.', 'teacher\.backbone_3d\.': choose one by prefix="):
        wrapper_of(keys, "conv_input.0.weight", "file")
    assert wrapper_of(keys, "conv_input.0.weight", "file", "teacher.") == "teacher.backbone_3d."
    with pytest.raises(ValueError, match="prefix=ema fits 0 of"):
        wrapper_of(keys, "conv_input.0.weight", "file", "ema")
    beside = ["conv_input.0.weight", "teacher.conv_input.0.weight"]
    assert wrapper_of(beside, "conv_input.0.weight", "file", "") == "", "what nothing wraps can be chosen as well"
    with pytest.raises(ValueError, match=r"no tensor conv_input\.0\.weight; its names begin with encoder\.layer"):
        wrapper_of(["encoder.layer.x"], "conv_input.0.weight", "file")
