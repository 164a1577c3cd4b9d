"""The same command finds its run again; no two runs share a folder."""

import json
import multiprocessing

import pytest

from equilidar.training.run_directory import RunIdentity, open_run


def _open(root, overrides=(), *, force=False, run=None, **config):
    return open_run("pretrain", {"seed": 0, "lr": 0.1, **config}, list(overrides), force=force, runs=str(root), run=run)


def _identity(*overrides, seed=0):
    return RunIdentity.from_overrides("pretrain", overrides, seed).folder()


def test_identity_ignores_order_and_what_does_not_change_results():
    first = _identity("+experiment=tiny", "a.b=1", "c=2")
    assert first == _identity(
        "c=2", "paths.runs=/elsewhere", "a.b=1", "force=true", "+experiment=tiny", "loader.num_workers=3"
    )
    assert str(first).startswith("pretrain/tiny-") and str(first).endswith("/seed0")


def test_identity_tells_runs_apart():
    folders = [
        _identity("+experiment=tiny"),
        _identity("+experiment=other"),
        _identity("+experiment=tiny", "a=1"),
        _identity("+experiment=tiny", "a=2"),
        _identity("+experiment=tiny", "~a"),
        _identity("+experiment=tiny", seed=1),
    ]
    assert len(set(folders)) == len(folders)
    assert str(folders[0]) == "pretrain/tiny/seed0"


def test_an_unfinished_run_is_resumed_and_a_finished_one_refuses(tmp_path):
    with _open(tmp_path) as run:
        assert run.resume_from is None
        run.last_checkpoint.write_bytes(b"x")
    with _open(tmp_path) as run:
        assert run.resume_from == run.last_checkpoint
        run.finish({"loss": 1.0})
    with pytest.raises(ValueError, match="force=true"), _open(tmp_path):
        pass
    with _open(tmp_path, force=True) as run:
        assert run.resume_from is None and not run.is_finished and not run.last_checkpoint.exists()


def test_force_does_not_throw_away_an_unfinished_run(tmp_path):
    with _open(tmp_path, force=True) as run:
        run.last_checkpoint.write_bytes(b"x")
    with _open(tmp_path, force=True) as run:
        assert run.resume_from == run.last_checkpoint


def test_another_number_of_workers_goes_on(tmp_path):
    with _open(tmp_path, loader={"batch_size": 4, "num_workers": 2}) as run:
        run.last_checkpoint.write_bytes(b"x")
    with _open(tmp_path, loader={"batch_size": 4, "num_workers": 0}) as run:
        assert run.resume_from == run.last_checkpoint
    with pytest.raises(ValueError, match=r"loader.batch_size"), _open(tmp_path, loader={"batch_size": 2}):
        pass


def test_a_changed_config_names_the_key(tmp_path):
    with _open(tmp_path, model={"width": 1}):
        pass
    with pytest.raises(ValueError, match=r"model.width \(1 there, 2 now\)"), _open(tmp_path, model={"width": 2}):
        pass
    with _open(tmp_path, model={"width": 2}, force=True) as run:
        assert json.loads((run.path / "run.json").read_text())["config"]["model"] == {"width": 2}


def test_a_folder_of_the_users_choice(tmp_path):
    with _open(tmp_path, ["a=1"], run=str(tmp_path / "mine")) as run:
        assert run.path == tmp_path / "mine"


def _try(root, queue):
    try:
        with _open(root):
            queue.put("entered")
    except ValueError as error:
        queue.put(str(error))


def test_a_second_process_is_refused_until_the_first_leaves(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with _open(tmp_path):
        process = context.Process(target=_try, args=(tmp_path, queue))
        process.start()
        assert "in use by another run (process" in queue.get(timeout=60)
        process.join()
    process = context.Process(target=_try, args=(tmp_path, queue))
    process.start()
    assert queue.get(timeout=60) == "entered"
    process.join()


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with _open(tmp_path) as run:
        run.finish({})
    assert not run.is_main and not run.path.exists()


def test_what_a_killed_write_left_is_removed(tmp_path):
    with _open(tmp_path) as run:
        (run.path / "checkpoints" / ".last.ckpt.17.partial").touch()
    with _open(tmp_path) as run:
        assert not list((run.path / "checkpoints").iterdir())
