"""What a run says it was made of."""

import json
import subprocess

from equilidar.training import provenance
from equilidar.training.run_directory import open_run


def _run(tmp_path):
    return open_run("pretrain", {"seed": 3, "lr": 0.5}, ["lr=0.5"], force=False, runs=str(tmp_path), run=None)


def test_every_attempt_is_recorded_and_config_is_the_one_used(tmp_path):
    with _run(tmp_path) as run:
        first = provenance.record(run, {"train": {"hash": "abc"}}, flow_from_labels=False)
        run.last_checkpoint.touch()
    with _run(tmp_path) as run:
        provenance.record(run, {"train": {"hash": "abc"}}, flow_from_labels=False)
        written = json.loads((run.path / "provenance.json").read_text())
    assert written["config"] == {"seed": 3, "lr": 0.5} and written["data"] == {"train": {"hash": "abc"}}
    assert written["identity"]["overrides"] == ["lr=0.5"] and written["flow_from_labels"] is False
    assert [attempt["resumed"] for attempt in written["attempts"]] == [False, True]
    assert {"torch", "numpy", "python"} <= set(first["attempts"][0]["packages"])
    assert first["attempts"][0]["hardware"]["cores"] >= 1


def test_commit_and_uncommitted_changes_are_kept(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "equilidar").mkdir(parents=True)
    code = checkout / "equilidar" / "__init__.py"
    code.write_text("A = 1\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-C", str(checkout)]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(provenance.equilidar, "__file__", str(code))
    with _run(tmp_path / "clean") as run:
        attempt = provenance.record(run, {})["attempts"][-1]
        assert attempt["git_is_clean"] is True and len(attempt["git_commit"]) == 40
        assert not (run.path / "uncommitted.diff").exists()
    code.write_text("A = 2\n")
    with _run(tmp_path / "changed") as run:
        assert provenance.record(run, {})["attempts"][-1]["git_is_clean"] is False
        assert "+A = 2" in (run.path / "uncommitted.diff").read_text()


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance.equilidar, "__file__", str(tmp_path / "equilidar" / "__init__.py"))
    with _run(tmp_path / "runs") as run:
        assert provenance.record(run, {})["attempts"][-1]["git_commit"] is None
