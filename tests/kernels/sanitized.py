"""Plugin for pytest where the kernels were built with sanitizers (cuda_ext/sanitize.py)."""

import pytest

pytest_plugins = ["tests.kernels.kernels_alone"]


def pytest_configure() -> None:
    """Refuse to test kernels that would hide their errors."""
    import equilidar_kernels

    if b"__asan_init" not in equilidar_kernels.library().read_bytes():
        raise pytest.UsageError(f"{equilidar_kernels.library()} is not built with sanitizers; run cuda_ext/sanitize.py")
