"""Loggers that a resumed run continues."""

import pytest

from equilidar.training import loggers
from equilidar.training.run_directory import open_run


def _run(tmp_path, seed=0):
    return open_run("pretrain", {"seed": seed}, [], force=False, runs=str(tmp_path), run=None)


def test_wandb_offline_keeps_its_id_and_ends_with_the_training(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    ids = []
    for seed in (0, 0, 1):
        with _run(tmp_path, seed) as run:
            logger = loggers.wandb(run, 0, offline=True)
            logger.log_metrics({"loss": 1.0}, 0)
            ids.append(logger.experiment.id)
            logger.finalize("success")
            assert wandb.run is None
    assert ids[0] == ids[1] != ids[2]


def test_tensorboard_is_left_out_with_a_word_where_it_is_not_installed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level("INFO"), _run(tmp_path) as run:
        assert loggers.tensorboard(run, 0) is None
    assert "equilidar[report]" in caplog.text


def test_wandb_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with _run(tmp_path) as run, pytest.raises(ImportError, match=r"equilidar\[wandb\]"):
        loggers.wandb(run, 0)
