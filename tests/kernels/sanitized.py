"""Plugin for pytest where the kernels were built with sanitizers (cuda_ext/sanitize.py).

Leaves out what tests PyTorch's own machinery (opcheck, gradcheck, compilation), which is slow there and says nothing of
our memory; and fails unless every compiled op was called.
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


def compiled_ops() -> set[str]:
    """Return the names of the ops that have a kernel for the CPU."""
    registered = torch._C._dispatch_get_registrations_for_dispatch_key("CPU")
    return {name for name in registered if name.startswith("equilidar::") and "::test_" not in name}


def pytest_configure() -> None:
    """Refuse to test kernels that would hide their errors."""
    import equilidar_kernels

    if b"__asan_init" not in equilidar_kernels.library().read_bytes():
        raise pytest.UsageError(f"{equilidar_kernels.library()} is not built with sanitizers; run cuda_ext/sanitize.py")


@pytest.fixture(autouse=True)
def _kernels_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.library, "opcheck", lambda *args, **options: None)
    monkeypatch.setattr(torch.autograd, "gradcheck", lambda *args, **options: True)
    with _Recorder():
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which ops ran, for those who read the log."""
    missed = sorted(compiled_ops() - CALLED)
    terminalreporter.write_line(f"compiled ops called: {sorted(CALLED & compiled_ops())}; not called: {missed}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a compiled op was not called, or none is compiled."""
    if session.exitstatus == 0 and (not compiled_ops() or compiled_ops() - CALLED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
