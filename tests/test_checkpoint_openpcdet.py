"""OpenPCDet's names and layouts, without its files; those are in tests/backbones/test_openpcdet.py."""

import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.checkpoint import load_openpcdet_state, read_openpcdet_checkpoint, to_openpcdet_state
from equilidar.checkpoint.identity import content_hash
from equilidar.structures import GridSpec

GRID = GridSpec((0.0, -3.2, -3.0), (6.4, 3.2, 1.0), (0.1, 0.1, 0.1))
FROM_KRSC = {"rsck": (1, 2, 3, 4, 0), "rskc": (1, 2, 3, 0, 4)}


def backbone(seed: int) -> VoxelBackBone8x:
    torch.manual_seed(seed)
    return VoxelBackBone8x(GRID, 4)


def stored_as(state: dict[str, torch.Tensor], layout: str) -> dict[str, torch.Tensor]:
    order = FROM_KRSC[layout]
    return {name: value.permute(order) if value.dim() == 5 else value for name, value in state.items()}


def test_second_backbone_has_72_tensors_under_their_names():
    """12 pairs of convolution and normalisation, 6 tensors each: what OpenPCDet's SECOND has below backbone_3d."""
    state = to_openpcdet_state(backbone(0))
    assert len(state) == 72
    assert state["backbone_3d.conv_input.0.weight"].shape == (16, 3, 3, 3, 4)
    assert state["backbone_3d.conv4.2.1.running_var"].shape == (64,)
    assert state["backbone_3d.conv_out.0.weight"].shape == (128, 3, 1, 1, 64)


def test_round_trip_is_exact_and_leaves_out_other_modules():
    source, target = backbone(1), backbone(2)
    state = to_openpcdet_state(source) | {"global_step": torch.zeros(1), "dense_head.conv_cls.bias": torch.zeros(18)}
    report = load_openpcdet_state(target, state)
    assert content_hash(target.state_dict()) == content_hash(source.state_dict())
    assert report.coverage == 1 and report.notes == ("left out, not of the backbone: dense_head, global_step",)


@pytest.mark.parametrize("layout", ["rsck", "rskc"])
def test_older_layouts_load_when_named_and_are_refused_when_not(layout):
    source, target = backbone(1), backbone(2)
    state = stored_as(to_openpcdet_state(source), layout)
    with pytest.raises(ValueError, match=rf"layout=krsc.*{layout}"):
        load_openpcdet_state(target, state)
    load_openpcdet_state(target, state, layout=layout)
    assert content_hash(target.state_dict()) == content_hash(source.state_dict())


def test_state_without_a_backbone_is_refused():
    with pytest.raises(ValueError, match=r"backbone_3d.*\['model'\]"):
        load_openpcdet_state(backbone(0), {"model.backbone_2d.x": torch.zeros(1)})
    with pytest.raises(ValueError, match="layout must be one of"):
        load_openpcdet_state(backbone(0), to_openpcdet_state(backbone(0)), layout="kcrs")


@pytest.mark.parametrize(
    "wrap", [lambda s: {"model_state": s, "epoch": 3}, lambda s: {f"model.{k}": v for k, v in s.items()}]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_files_are_read(tmp_path, wrap, zipped):
    state = to_openpcdet_state(backbone(1))
    torch.save(wrap(state), tmp_path / "second.pth", _use_new_zipfile_serialization=zipped)
    read = read_openpcdet_checkpoint(tmp_path / "second.pth")
    assert content_hash(read) == content_hash(state)


class Payload:
    def __reduce__(self):
        return (exec, ("raise AssertionError('code of a checkpoint was run')",))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"model_state": {}, "version": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="more than tensors") as error:
        read_openpcdet_checkpoint(tmp_path / "evil.pth")
    assert "\n" not in str(error.value)


def test_unreadable_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_openpcdet_checkpoint(tmp_path / "nowhere.pth")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(ValueError, match="damaged"):
        read_openpcdet_checkpoint(tmp_path / "text.pth")
    torch.save({"model_state": {"epoch": 1}}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="no model_state"):
        read_openpcdet_checkpoint(tmp_path / "empty.pth")
