"""The name that a user meant."""

import pytest

from equilidar.training.known_keys import nearest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("optimizr.lr", "optimizer.lr"),
        ("lr", "optimizer.lr"),
        ("trainer.max_step", "trainer.max_steps"),
        ("sed", "seed"),
        ("objectve", "objective"),
    ],
)
def test_nearest_is_what_was_meant(typed, meant):
    known = ["optimizer", "optimizer.lr", "optimizer.betas", "trainer.max_steps", "trainer.max_epochs", "seed"]
    assert nearest(typed, [*known, "objective", "logger"]) == meant


def test_nothing_known_gives_nothing():
    assert nearest("a", []) is None
