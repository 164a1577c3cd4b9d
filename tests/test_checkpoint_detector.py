"""A detector's file: what is saved is loaded, and a file that wants to build foreign classes is refused."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from equilidar.checkpoint.detector import read_detector, save_detector
from equilidar.structures import SensorContract

CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")
CONFIG = {"grid": {"_target_": "equilidar.structures.GridSpec.from_range"}, "detector": {"parts": [{"width": 1}]}}


def save(path: Path, network: nn.Module, config: dict) -> None:
    save_detector(path, network, config=config, class_names=("Car",), contract=CONTRACT, provenance={"seed": 1})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path, network, other = tmp_path / "d.safetensors", nn.Linear(3, 2), nn.Linear(3, 2)
    save(path, network, CONFIG)
    saved = read_detector(path)
    assert (saved.config, saved.class_names, saved.contract, saved.provenance) == (
        CONFIG,
        ("Car",),
        CONTRACT,
        {"seed": 1},
    )
    saved.load_into(other, "here")
    assert torch.equal(other.weight, network.weight) and torch.equal(other.bias, network.bias)
    with pytest.raises(ValueError, match="covers"):
        saved.load_into(nn.Linear(4, 2), "here")


@pytest.mark.parametrize("place", ["grid", "nested"])
def test_foreign_classes_are_refused(tmp_path: Path, place: str) -> None:
    foreign = {"_target_": "os.system", "command": "true"}
    config = {"grid": foreign} if place == "grid" else {"detector": {"anchors": [{"a": [foreign]}]}}
    path = tmp_path / "d.safetensors"
    save(path, nn.Linear(1, 1), config)
    with pytest.raises(ValueError, match=r"os\.system"):
        read_detector(path)


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
        save(tmp_path / "nan", nn.Linear(1, 1).requires_grad_(False).apply(lambda m: m.weight.fill_(torch.nan)), CONFIG)
