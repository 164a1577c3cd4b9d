import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.checkpoint import LoadReport, load_backbone, read_backbone, save_backbone
from equilidar.checkpoint.identity import content_hash
from equilidar.structures import GridSpec, SensorContract

GRID = GridSpec((0.0, -3.2, -3.0), (6.4, 3.2, 1.0), (0.1, 0.1, 0.1))
CONTRACT = SensorContract(("intensity",), (255.0,), "sensor")


def backbone(seed: int = 0, grid: GridSpec = GRID, in_channels: int = 4, width: float = 0.25) -> VoxelBackBone8x:
    torch.manual_seed(seed)
    return VoxelBackBone8x(grid, in_channels, width=width)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "backbone.safetensors"
    save_backbone(path, backbone(1), CONTRACT, {"seed": 1, "flow_from_labels": False})
    return path


def test_round_trip_is_exact_and_reported(saved, capsys):
    target = backbone(2)
    report = load_backbone(saved, target, CONTRACT)
    expected = backbone(1).state_dict()
    for name, value in target.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert report.coverage == 1 and set(report.loaded) == set(expected)
    assert not (report.missing or report.unexpected or report.misshaped or report.notes)
    printed = capsys.readouterr().out
    assert "conv_input" in printed and "misshaped" in printed and report.content_hash in printed


def test_file_tells_what_it_is(saved):
    file = read_backbone(saved)
    assert file.provenance == {"seed": 1, "flow_from_labels": False}
    identity = file.identity
    assert identity.backbone == "equilidar.VoxelBackBone8x" and identity.in_channels == 4
    assert identity.weight_layout == "krsc" and "counter-clockwise" in identity.box_convention
    assert identity.grid == {"low": [0.0, -3.2, -3.0], "high": [6.4, 3.2, 1.0], "voxel_size": [0.1, 0.1, 0.1]}
    assert identity.contract == {"channels": ["intensity"], "scales": [255.0], "frame": "sensor"}
    assert identity.content_hash == content_hash(backbone(1).state_dict()) != content_hash(backbone(2).state_dict())


@pytest.mark.parametrize(
    ("target", "contract", "field", "remedy"),
    [
        (backbone(grid=GridSpec(GRID.low, GRID.high, (0.2, 0.2, 0.1))), CONTRACT, "grid.voxel_size", "grid"),
        (backbone(width=0.5), CONTRACT, "backbone.channels", "configure the backbone"),
        (backbone(in_channels=5), SensorContract(("intensity", "time"), (255.0, 1.0), "sensor"), "in_channels", "feed"),
        (backbone(), SensorContract(("intensity",), (1.0,), "sensor"), "contract.scales", "units"),
        (backbone(), SensorContract(("time",), (255.0,), "sensor"), "contract.channels", "channels"),
        (backbone(), replace(CONTRACT, frame="ego"), "contract.frame", "frame"),
    ],
    ids=["voxel size", "channels", "inputs", "scales", "channel names", "frame"],
)
def test_another_backbone_is_refused_by_field_and_left_as_it_was(saved, target, contract, field, remedy):
    before = content_hash(target.state_dict())
    with pytest.raises(ValueError) as error:
        load_backbone(saved, target, contract)
    message = str(error.value)
    assert field in message and remedy in message and "\n" not in message
    assert content_hash(target.state_dict()) == before


def test_another_class_is_refused(saved):
    class OtherBackbone(VoxelBackBone8x):
        pass

    with pytest.raises(ValueError, match=r"backbone: file .*VoxelBackBone8x.*OtherBackbone"):
        load_backbone(saved, OtherBackbone(GRID, 4, width=0.25), CONTRACT)


def test_another_range_is_noted_and_loads(saved):
    wide = GridSpec((-6.4, -6.4, -3.0), (6.4, 6.4, 1.0), (0.1, 0.1, 0.1))
    report = load_backbone(saved, backbone(grid=wide), CONTRACT)
    assert report.coverage == 1 and any("grid.low" in note for note in report.notes)


def test_a_difference_can_be_accepted_by_name(saved):
    other = SensorContract(("intensity",), (1.0,), "sensor")
    report = load_backbone(saved, backbone(), other, accept=["contract.scales"])
    assert report.coverage == 1 and "contract.scales" in report.notes[0]


def rewritten(path: Path, change) -> None:
    """Rewrite tensors under a matching hash: a file that lies in nothing but its completeness."""
    with safetensors.safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors)
    identity = json.loads(metadata["identity"])
    identity["content_hash"] = content_hash(tensors)
    path.write_bytes(safetensors.torch.save(tensors, metadata | {"identity": json.dumps(identity)}))


def test_missing_misshaped_and_unexpected_are_errors(saved, capsys):
    rewritten(saved, lambda tensors: tensors.pop("conv2.0.0.weight"))
    target = backbone(2)
    before = content_hash(target.state_dict())
    with pytest.raises(ValueError, match=r"1 missing like conv2\.0\.0\.weight"):
        load_backbone(saved, target, CONTRACT)
    assert "missing: conv2.0.0.weight" in capsys.readouterr().out
    assert content_hash(target.state_dict()) == before
    assert load_backbone(saved, target, CONTRACT, threshold=0.9).missing == ("conv2.0.0.weight",)

    rewritten(saved, lambda tensors: tensors.update({"conv2.0.0.weight": torch.zeros(2, 2)}))
    with pytest.raises(ValueError, match="1 mis-shaped"):
        load_backbone(saved, target, CONTRACT)
    assert "conv2.0.0.weight: (2, 2) for (8, 3, 3, 3, 4)" in capsys.readouterr().out


def test_unexpected_tensors_are_an_error(saved, capsys):
    rewritten(saved, lambda tensors: tensors.update({"head.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match="1 unexpected"):
        load_backbone(saved, backbone(2), CONTRACT)
    assert "unexpected: head.weight" in capsys.readouterr().out


def test_numbers_that_are_not_finite_are_refused_both_ways(saved, tmp_path):
    broken = backbone(3)
    with torch.no_grad():
        broken.conv_input[0].weight[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"conv_input\.0\.weight .*not finite"):
        save_backbone(tmp_path / "nan.safetensors", broken, CONTRACT, {})
    assert not list(tmp_path.glob("*nan*"))
    rewritten(saved, lambda tensors: tensors["conv1.0.0.weight"].fill_(float("inf")))
    with pytest.raises(ValueError, match=r"conv1\.0\.0\.weight .*not finite"):
        load_backbone(saved, backbone(2), CONTRACT)


def test_contract_that_is_not_the_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="in_channels is 4"):
        save_backbone(tmp_path / "x.safetensors", backbone(), SensorContract((), (), "sensor"), {})


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        load_backbone(tmp_path / "nowhere.safetensors", backbone(), CONTRACT)


@pytest.mark.parametrize("kept", [0, 4, 100, 5000, -1])
def test_truncated_file_is_one_line(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ValueError, match="whole safetensors file") as error:
        load_backbone(saved, backbone(), CONTRACT)
    assert "\n" not in str(error.value) and str(saved) in str(error.value)


def test_foreign_and_damaged_files(saved, tmp_path):
    pickled = tmp_path / "model.pth"
    torch.save(backbone().state_dict(), pickled)
    with pytest.raises(ValueError, match="no whole safetensors"):
        read_backbone(pickled)
    bare = tmp_path / "bare.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(1)}, bare)
    with pytest.raises(ValueError, match="is no backbone"):
        read_backbone(bare)
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_backbone(saved)


def test_report_without_tensors_covers_nothing():
    assert LoadReport("nothing", (), (), (), ()).coverage == 0
