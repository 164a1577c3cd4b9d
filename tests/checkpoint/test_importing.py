"""Each code base's backbone comes in under its names, tensor by tensor; what does not fit is told, never guessed."""

import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.checkpoint.backbone_keys import backbone_keys
from equilidar.checkpoint.identity import content_hash
from equilidar.checkpoint.importing import ImportSettings, import_state, input_layer

from .foreign_states import (
    DET3D_RESIDUAL,
    GRID,
    MM_PLAIN,
    MM_RESIDUAL,
    OPENPCDET_PLAIN,
    OPENPCDET_RESIDUAL,
    Named,
    plain_layers,
    residual_backbone,
    residual_layers,
    state,
    stored_as,
)


def plain_backbone(inputs: int = 4) -> VoxelBackBone8x:
    torch.manual_seed(1)
    return VoxelBackBone8x(GRID, inputs)


def load(backbone, tensors, source="openpcdet", **settings):
    keys = backbone_keys(source, backbone)
    return import_state(backbone, tensors, keys, input_layer(backbone), "file.pth", ImportSettings(**settings))


def assert_holds(backbone, expected):
    found = backbone.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


PLAIN = state(plain_layers(), OPENPCDET_PLAIN)
RESIDUAL = state(residual_layers(), OPENPCDET_RESIDUAL)
WITHOUT_BIAS = state(residual_layers(bias=False), OPENPCDET_RESIDUAL)
CASES = {
    "openpcdet plain": (plain_backbone, "openpcdet", state(plain_layers(), OPENPCDET_PLAIN, "backbone_3d."), PLAIN),
    "openpcdet residual": (
        residual_backbone,
        "openpcdet",
        state(residual_layers(), OPENPCDET_RESIDUAL, "module.backbone_3d."),
        RESIDUAL,
    ),
    "bare": (plain_backbone, "openpcdet", PLAIN, PLAIN),
    "ALSO": (plain_backbone, "openpcdet", state(plain_layers(), OPENPCDET_PLAIN, "model.backbone_3d."), PLAIN),
    "ALSO lightning": (
        plain_backbone,
        "openpcdet",
        state(plain_layers(), OPENPCDET_PLAIN, "backbone.model.backbone_3d."),
        PLAIN,
    ),
    "mm plain": (plain_backbone, "mmdet3d", state(plain_layers(), MM_PLAIN, "middle_encoder."), PLAIN),
    "mm multi-modal": (
        residual_backbone,
        "mmdet3d",
        state(residual_layers(), MM_RESIDUAL, "pts_middle_encoder."),
        RESIDUAL,
    ),
    "det3d": (residual_backbone, "det3d", state(residual_layers(), DET3D_RESIDUAL, "backbone."), RESIDUAL),
}


@pytest.mark.parametrize("layout", ["krsc", "rsck", "rskc"])
@pytest.mark.parametrize("name", CASES)
def test_every_code_base_in_every_layout(name, layout):
    make, source, tensors, expected = CASES[name]
    backbone = make()
    tensors = tensors if layout == "krsc" else stored_as(tensors, layout)
    report = load(backbone, tensors, source)
    assert_holds(backbone, expected)
    assert report.coverage == 1 and not (report.missing or report.unexpected or report.misshaped)
    num_kernels = sum(value.dim() == 5 for value in expected.values())
    assert len(report.reshaped) == (0 if layout == "krsc" else num_kernels)
    assert set(report.loaded) <= {key.split("backbone_3d.")[-1] for key in tensors} | set(tensors) | {
        key.partition(".")[2] for key in tensors
    }, "by the file's own names"


def test_counts_are_those_of_the_published_files():
    assert len(PLAIN) == 72
    assert len(RESIDUAL) == 21 * 6 + 16, "16 convolutions of residual blocks have a bias"


@pytest.mark.parametrize("source", ["mmdet3d", "openpcdet"])
def test_residual_blocks_without_bias_are_the_same_network_with_zeros(source, capsys):
    """Neither mmdetection3d nor OpenPCDet with USE_BIAS False have them."""
    names = MM_RESIDUAL if source == "mmdet3d" else OPENPCDET_RESIDUAL
    backbone = residual_backbone()
    report = load(backbone, state(residual_layers(bias=False), names, "x."), source)
    zeros = {name: torch.zeros(value.shape) for name, value in RESIDUAL.items() if name not in WITHOUT_BIAS}
    assert len(zeros) == 16
    assert_holds(backbone, {name: zeros.get(name, WITHOUT_BIAS.get(name)) for name in RESIDUAL})
    assert report.coverage == 1 and len(report.reshaped) == 16
    assert "16 residual convolutions have no bias: set to zero" in capsys.readouterr().out


def test_some_missing_biases_are_a_damaged_file():
    tensors = {name: value for name, value in RESIDUAL.items() if name != "conv3.1.conv2.bias"}
    with pytest.raises(ValueError, match=r"1 missing like conv3\.1\.conv2\.bias"):
        load(residual_backbone(), tensors)


def test_bev_mae_decoder_is_left_out():
    """Its decoder, heads and mask token hang inside backbone_3d."""
    extra = {
        "decoder.0.weight": torch.zeros(256, 256, 3, 3), "coor_conv.weight": torch.zeros(60, 256, 1, 1),
        "num_conv.bias": torch.zeros(1), "mask_token": torch.zeros(1, 5),
    }  # fmt: skip
    tensors = {f"backbone_3d.{name}": value for name, value in (RESIDUAL | extra).items()}
    backbone = residual_backbone()
    report = load(backbone, tensors | {"global_step": torch.tensor([3])})
    assert_holds(backbone, RESIDUAL)
    assert set(report.skipped) == {*(f"backbone_3d.{name}" for name in extra), "global_step"}


def test_unknown_parts_are_named_and_can_be_left_out():
    tensors = PLAIN | {"projector.0.weight": torch.zeros(3)}
    backbone = plain_backbone()
    before = content_hash(backbone.state_dict())
    with pytest.raises(ValueError, match=r"1 unexpected like projector.*add leave_out=\[projector\]"):
        load(backbone, tensors)
    assert content_hash(backbone.state_dict()) == before, "nothing half-loaded"
    load(backbone, tensors, leave_out=["projector"])
    assert_holds(backbone, PLAIN)


def test_another_class_of_backbone_is_told():
    with pytest.raises(
        ValueError, match=r"covers 33\.3%.*its backbone is residual \(backbone=voxel_residual\), the on"
    ):
        load(plain_backbone(), RESIDUAL, input_features="copy")
    with pytest.raises(ValueError, match=r"its backbone is plain \(backbone=voxel_plain\)"):
        load(residual_backbone(), PLAIN, input_features="copy")
    with pytest.raises(ValueError, match="source=det3d: its SpMiddleResNetFHD"):
        load(plain_backbone(), PLAIN, source="det3d")
    with pytest.raises(ValueError, match="source must be one of openpcdet, mmdet3d, det3d, equilidar"):
        load(plain_backbone(), PLAIN, source="pcdet")


def test_threshold():
    tensors = {name: value for name, value in PLAIN.items() if not name.startswith("conv_out")}
    with pytest.raises(ValueError, match=r"covers 91\.7%.*6 missing like conv_out\.0\.weight"):
        load(plain_backbone(), tensors)
    report = load(plain_backbone(), tensors, threshold=0.9)
    assert report.coverage == pytest.approx(66 / 72) and len(report.missing) == 6
    with pytest.raises(ValueError, match="threshold must lie above 0"):
        ImportSettings(threshold=1.5)


def test_a_file_without_its_first_tensors_is_told_like_any_other(capsys):
    tensors = {f"module.backbone_3d.{n}": v for n, v in PLAIN.items() if not n.startswith("conv_input.")}
    tensors["module.dense_head.conv_cls.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"covers 91\.7%.*6 missing like conv_input\.0\.weight"):
        load(plain_backbone(), tensors)
    assert "left out, not of the VoxelBackBone8x: dense_head\n" in capsys.readouterr().out
    report = load(plain_backbone(), tensors, threshold=0.9)
    assert report.coverage == pytest.approx(66 / 72)


def test_other_input_columns_ask_for_a_choice():
    with pytest.raises(ValueError, match=r"conv_input\.0\.weight has 4 input columns in the file, 5 here; add input_"):
        load(plain_backbone(5), PLAIN)
    with pytest.raises(ValueError, match="input_features must be null, copy, zero_pad, skip; got 'pad'"):
        ImportSettings(input_features="pad")


@pytest.mark.parametrize("layout", ["krsc", "rsck"])
@pytest.mark.parametrize(("there", "here"), [(4, 5), (5, 4)])
def test_input_columns(there, here, layout):
    name = "conv_input.0.weight"
    tensors = state(plain_layers(there), OPENPCDET_PLAIN)
    stored = tensors if layout == "krsc" else stored_as(tensors, layout)
    fresh = plain_backbone(here).state_dict()[name].clone()
    rest = {key: value for key, value in tensors.items() if key != name}

    backbone = plain_backbone(here)
    report = load(backbone, stored, input_features="copy")
    found = backbone.state_dict()[name]
    assert torch.equal(found[..., :4], tensors[name][..., :4]) and name in report.reshaped
    assert torch.equal(found[..., 4:], fresh[..., 4:]), "columns of ours alone stay as initialised"
    assert all(torch.equal(backbone.state_dict()[key], value) for key, value in rest.items())

    backbone = plain_backbone(here)
    if here > there:
        load(backbone, stored, input_features="zero_pad")
        found = backbone.state_dict()[name]
        assert torch.equal(found[..., :4], tensors[name][..., :4]) and not found[..., 4:].any()
    else:
        with pytest.raises(ValueError, match="nothing to pad; input_features=copy drops"):
            load(backbone, stored, input_features="zero_pad")

    backbone = plain_backbone(here)
    report = load(backbone, stored, input_features="skip")
    assert torch.equal(backbone.state_dict()[name], fresh) and report.coverage == 1
    assert any("stays as initialised" in note for note in report.notes)


def test_derived_columns_of_pillars_keep_their_place():
    """A pillar encoder's linear layer reads the raw columns, then six that it derives."""
    theirs = {"vfe.pfn_layers.0.linear.weight": torch.arange(20.0).reshape(2, 10)}
    ours = Named({"vfe.pfn_layers.0.linear.weight": torch.zeros(2, 11)}, in_channels=5)
    load(ours, theirs | {"dense_head.conv_cls.bias": torch.zeros(3)}, input_features="zero_pad")
    row = ours.state_dict()["vfe.pfn_layers.0.linear.weight"][0]
    assert row.tolist() == [0, 1, 2, 3, 0, 4, 5, 6, 7, 8, 9]


def test_student_and_teacher():
    other = state(plain_layers(), OPENPCDET_PLAIN, "student.backbone_3d.", seed=8)
    both = state(plain_layers(), OPENPCDET_PLAIN, "teacher.backbone_3d.") | other
    with pytest.raises(ValueError, match="choose one by prefix="):
        load(plain_backbone(), both)
    backbone = plain_backbone()
    load(backbone, both, prefix="teacher.")
    assert_holds(backbone, PLAIN)


def test_half_precision_is_cast_and_said():
    half = {name: value.half() if value.is_floating_point() else value for name, value in PLAIN.items()}
    backbone = plain_backbone()
    report = load(backbone, half)
    assert any("60 tensors cast from torch.float16 to torch.float32" in note for note in report.notes)
    assert torch.equal(backbone.state_dict()["conv_out.1.bias"], half["conv_out.1.bias"].float())


def test_numbers_that_are_not_finite_are_refused():
    broken = PLAIN | {"conv2.0.1.bias": torch.full((32,), torch.nan)}
    with pytest.raises(ValueError, match=r"conv2\.0\.1\.bias holds numbers that are not finite"):
        load(plain_backbone(), broken)


def test_square_kernels_alone_ask_for_the_layout():
    """A file of the inner layers only: rsck and rskc look alike."""
    layers = plain_layers(16)[1:2]
    tensors = stored_as(state(layers, [("conv_input.0", "conv_input.1")]), "rskc")
    backbone = Named(state(layers, [("conv_input.0", "conv_input.1")]), 16)
    with pytest.raises(ValueError, match="fit layout rsck and rskc"):
        load(backbone, tensors)
    load(backbone, tensors, layout="spconv2_native")
    assert_holds(backbone, state(layers, [("conv_input.0", "conv_input.1")]))
