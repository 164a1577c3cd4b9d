"""Checks a named switch of an objective."""

from typing import TypeVar

Choice = TypeVar("Choice", bound=str)


def one_of(name: str, value: str, choices: tuple[Choice, ...]) -> Choice:
    """Return `value` as one of `choices`; ValueError that names the switch and the choices otherwise."""
    for choice in choices:
        if value == choice:
            return choice
    raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}")
