"""A detector's file: what is saved is loaded, and a file that wants to build foreign classes is refused."""

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from equilidar.backbones import VoxelBackBone8x
from equilidar.checkpoint.detector import read_detector, save_detector
from equilidar.structures import GridSpec, SensorContract

CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")
GRID = GridSpec((0.0, -3.2, -3.0), (6.4, 3.2, 1.0), (0.1, 0.1, 0.1))
CONFIG = {"grid": {"_target_": "equilidar.structures.GridSpec.from_range"}, "detector": {"parts": [{"width": 1}]}}


class Network(nn.Module):
    """The least that can be saved as a detector."""

    def __init__(self, seed: int = 0, width: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = VoxelBackBone8x(GRID, 4, width=0.125)
        self.head = nn.Linear(3, width)


def save(path: Path, network: nn.Module, config: dict) -> None:
    save_detector(path, network, config=config, class_names=("Car",), contract=CONTRACT, provenance={"seed": 1})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path, network, other = tmp_path / "d.safetensors", Network(1), Network(2)
    save(path, network, CONFIG)
    saved = read_detector(path)
    assert (saved.config, saved.class_names, saved.contract, saved.provenance) == (
        CONFIG,
        ("Car",),
        CONTRACT,
        {"seed": 1},
    )
    saved.load_into(other, "here")
    ours, theirs = other.state_dict(), network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(ValueError, match=r"covers .* mis-shaped like head\.weight"):
        saved.load_into(Network(width=3), "here")


def test_a_file_says_what_its_tensors_mean(tmp_path: Path) -> None:
    save(tmp_path / "d", Network(), CONFIG)
    with safetensors.safe_open(str(tmp_path / "d"), framework="pt") as file:
        record = json.loads(file.metadata()["record"])
    assert record["format"] == "equilidar-detector-1" and record["spconv_layout"] == "krsc"
    assert record["backbone_class"] == "VoxelBackBone8x" and record["in_features"] == 4
    assert record["voxel_size"] == [0.1, 0.1, 0.1] and record["range"] == [0.0, -3.2, -3.0, 6.4, 3.2, 1.0]
    assert "counter-clockwise" in record["box_convention"]


@pytest.mark.parametrize("place", ["grid", "nested"])
def test_foreign_classes_are_refused(tmp_path: Path, place: str) -> None:
    foreign = {"_target_": "os.system", "command": "true"}
    config = {"grid": foreign} if place == "grid" else {"detector": {"anchors": [{"a": [foreign]}]}}
    path = tmp_path / "d.safetensors"
    save(path, Network(), config)
    with pytest.raises(ValueError, match=r"os\.system"):
        read_detector(path)


def test_files_of_other_code_bases_are_sent_to_the_converter(tmp_path: Path) -> None:
    torch.save({"model_state": {"x": torch.zeros(1)}}, tmp_path / "second.pth")
    with pytest.raises(ValueError, match=r"second\.pth is no whole safetensors file.*tools/convert\.py first"):
        read_detector(tmp_path / "second.pth")


def test_damaged_and_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        read_detector(tmp_path / "none.safetensors")
    (tmp_path / "cut").write_bytes(b"\x10")
    with pytest.raises(ValueError, match="no whole safetensors file"):
        read_detector(tmp_path / "cut")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "bare")
    with pytest.raises(ValueError, match="no finetuned detector"):
        read_detector(tmp_path / "bare")
    metadata = {"format": "equilidar-detector-1", "config": json.dumps(CONFIG)}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "half", metadata)
    with pytest.raises(ValueError, match="metadata"):
        read_detector(tmp_path / "half")
    with pytest.raises(ValueError, match="not finite"):
        broken = Network().requires_grad_(False)
        broken.head.bias.fill_(torch.nan)
        save(tmp_path / "nan", broken, CONFIG)
