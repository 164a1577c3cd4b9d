"""The name that a user meant."""

import pytest
from omegaconf import OmegaConf

from equilidar.training.known_keys import missing_keys, nearest


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


def test_missing_values_are_found_behind_interpolations_and_in_lists():
    cfg = OmegaConf.create({"a": {"root": "???"}, "b": {"root": "${a.root}"}, "c": [1, "???"], "d": 2})
    assert missing_keys(cfg) == ["a.root", "c[1]"]
