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
