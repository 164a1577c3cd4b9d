import pytest
import torch

from equilidar.nn.device import device_of


def test_names_of_devices() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_of(torch.device("meta")).type == "meta"
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda, got 'gpu'"):
        device_of("gpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device=cuda.*set device=cpu"):
        device_of("cuda")


def test_one_of_several_gpus_is_chosen_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of("cuda:1") == torch.device("cuda", 1) and device_of("auto") == torch.device("cuda")
    with pytest.raises(ValueError, match=r"device=cuda:2, but 2 GPUs are to be had"):
        device_of("cuda:2")
    with pytest.raises(ValueError, match=r"got 'cuda:x'"):
        device_of("cuda:x")
