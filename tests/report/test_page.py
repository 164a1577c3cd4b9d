"""The page: self-contained, small, escaped; and the command that writes it."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from equilidar.report import page
from equilidar.report.page import write_report
from equilidar.report.run_summary import RunSummary

from .fake_runs import write_run

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)
_VOID = {"meta", "img"}


class _Balance(HTMLParser):
    """Checks that tags close in order, and collects text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _runs(folder: Path) -> list[RunSummary]:
    write_run(folder / "p", command="pretrain")
    for init, ap in (("scratch", 40.0), ("pretrained", 41.0)):
        run = write_run(folder / init, command="finetune", init=init, ap=ap)
        (run / "pictures").mkdir()
        for name in ("scene_1.png", "scene_2.png"):
            (run / "pictures" / name).write_bytes(PNG)
    return [RunSummary.read(folder / name) for name in ("p", "scratch", "pretrained")]


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    path = write_report(tmp_path / "out" / "report.html", _runs(tmp_path), "A title", ["A note."])
    text = path.read_text()
    balance = _Balance()
    balance.feed(text)
    assert balance.open == []
    assert "script" not in balance.seen
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "url(" not in text
    assert path.stat().st_size < 3_000_000
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    for expected in (
        "A title", "A note.", "Pretrained is 1.00 AP above scratch", "one run (seed 0)", "train/flow/regression",
        "Pretraining: rotation accuracy", "chance: 1 in 10", "Pretraining: spread of features, gradients",
        "effective_rank", "Finetuning: validation", "config hash", "git_commit", "0123456789abcdef", "2.13.0", "aa11",
    ):  # fmt: skip
        assert expected in text, expected


def test_pictures_of_one_scene_stand_side_by_side(tmp_path: Path) -> None:
    text = write_report(tmp_path / "report.html", _runs(tmp_path)).read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", text)
    assert captions == [
        "scratch, seed 0: scene 1",
        "pretrained, seed 0: scene 1",
        "scratch, seed 0: scene 2",
        "pretrained, seed 0: scene 2",
    ]


def test_pictures_beyond_the_limit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_PICTURE_BYTES", 2500)
    text = write_report(tmp_path / "report.html", _runs(tmp_path)).read_text()
    assert text.count("<figcaption>") == 2
    assert "2 more would make this page too large" in text


def test_what_runs_call_themselves_is_escaped(tmp_path: Path) -> None:
    run = RunSummary.read(write_run(tmp_path / "a", command="finetune", ap=3), "<script>x</script>")
    text = write_report(tmp_path / "r.html", [run], "<i>", ["<b>&"]).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;x" in text
    assert "&lt;b&gt;&amp;" in text


def test_only_pretraining_is_a_page_without_results(tmp_path: Path) -> None:
    run = RunSummary.read(write_run(tmp_path / "a", command="pretrain"))
    assert "None of these runs was evaluated." in write_report(tmp_path / "r.html", [run]).read_text()


def test_no_runs_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one finished run"):
        write_report(tmp_path / "r.html", [])


def test_the_command(tmp_path: Path) -> None:
    _runs(tmp_path)
    command = [sys.executable, str(ROOT / "tools" / "report.py")]
    names = ["p", "before=scratch", "after=pretrained", "--output", "page.html"]
    done = subprocess.run([*command, *names], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "quickstart, labels not stated: AP in percent, moderate" and lines[-1] == "page.html"
    assert "before" in (tmp_path / "page.html").read_text()
    assert {path.suffix for path in tmp_path.glob("page.*")} == {".html", ".txt", ".csv", ".json"}
    assert (tmp_path / "page.txt").read_text() == "\n".join(lines[:-2]) + "\n"
    whole = subprocess.run([*command, ".", "--output", "all.html"], cwd=tmp_path, capture_output=True, check=False)
    assert whole.returncode == 0 and "pretrained" in (tmp_path / "all.csv").read_text()
    failed = subprocess.run([*command, "nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr == "error: no run directory nowhere\n"
