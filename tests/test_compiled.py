"""Compiled loops work with and without a place for numba's cache."""

from typing import Any

import numba
import numpy as np
import pytest

from equilidar.compiled import compiled


def _double(values: np.ndarray) -> np.ndarray:
    return values * 2


def test_annotated_functions_compile() -> None:
    assert compiled(_double)(np.arange(3)).tolist() == [0, 2, 4]


def test_without_a_place_for_the_cache_it_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def refuse(*arguments: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function '_double': no locator available")
        return njit(*arguments, **options)

    monkeypatch.setattr(numba, "njit", refuse)
    assert compiled(_double)(np.arange(3)).tolist() == [0, 2, 4]
