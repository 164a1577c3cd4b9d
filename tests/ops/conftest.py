"""Every op is tested on the CPU, and on a GPU where there is one."""

import pytest
import torch
from jaxtyping import config

_NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _NO_GPU])])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def unchecked():
    """Switch the run-time shape checks off, as in use: the function's own errors are tested."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
