"""Plugin for pytest where the kernels run under a sanitizer, and slowly: -p tests.kernels.kernels_alone

Leaves out what tests PyTorch's own machinery (opcheck, gradcheck), which says nothing of our memory, and fails unless
every compiled op was called: of the CPU's kernels or, with `-m gpu`, of CUDA's.
"""

from collections.abc import Iterator

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

CALLED: set[str] = set()


class _Recorder(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "equilidar":
            CALLED.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def compiled_ops(config: pytest.Config) -> set[str]:
    """Return the names of the ops that have a kernel for the device whose tests run."""
    device = "CUDA" if config.option.markexpr == "gpu" else "CPU"
    registered = torch._C._dispatch_get_registrations_for_dispatch_key(device)
    return {name for name in registered if name.startswith("equilidar::") and "::test_" not in name}


@pytest.fixture(autouse=True)
def _kernels_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.library, "opcheck", lambda *args, **options: None)
    monkeypatch.setattr(torch.autograd, "gradcheck", lambda *args, **options: True)
    with _Recorder():
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which ops ran, for those who read the log."""
    compiled = compiled_ops(config)
    ran, missed = sorted(CALLED & compiled), sorted(compiled - CALLED)
    terminalreporter.write_line(f"compiled ops called: {ran}; not called: {missed}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a compiled op was not called, or none is compiled."""
    compiled = compiled_ops(session.config)
    if session.exitstatus == 0 and (not compiled or compiled - CALLED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
