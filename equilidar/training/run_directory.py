"""Where a run writes: the folder follows from experiment, overrides and seed, so the same command finds it again."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from equilidar.training.json_file import write_json

# Overrides that say where or how to start, not what to compute.
_NOT_IDENTITY = ("experiment", "seed", "force", "paths")
# Who reads does not change what is read: a run goes on with any number of workers.
_WITHOUT_EFFECT = "loader.num_workers"


@dataclass(frozen=True)
class RunIdentity:
    """What makes two commands the same run.

    Attributes:
        command: name of the entry point ("pretrain", "finetune").
        experiment: name of the experiment config, or "default".
        overrides: the other overrides that decide what is computed, sorted.
        seed: of the run.
    """

    command: str
    experiment: str
    overrides: tuple[str, ...]
    seed: int

    @classmethod
    def from_overrides(cls, command: str, overrides: Sequence[str], seed: int) -> "RunIdentity":
        """Sort a command line's overrides into experiment and the rest."""
        named = [(text.partition("=")[0].lstrip("+~"), text) for text in overrides]
        experiments = [text.partition("=")[2] for key, text in named if key == "experiment"]
        kept = [text for key, text in named if key.split(".")[0] not in _NOT_IDENTITY and key != _WITHOUT_EFFECT]
        experiment = experiments[-1].strip("[]").replace(",", "+") if experiments else "default"
        return cls(command, experiment, tuple(sorted(kept)), seed)

    def folder(self) -> Path:
        """Return the run's folder below the root: command/experiment[-hash of overrides]/seed."""
        digest = hashlib.sha256("\n".join(self.overrides).encode()).hexdigest()[:8]
        name = f"{self.experiment}-{digest}" if self.overrides else self.experiment
        return Path(self.command) / name / f"seed{self.seed}"


@dataclass
class RunDirectory:
    """An open run directory, locked against a second process. Use as a context manager.

    Attributes:
        path: the folder.
        resolved: the config that the run uses.
        is_main: whether this process may write (rank 0).

    Raises:
        ValueError: another process is in it; it holds a finished run, or one with another config, and `force` is not
            set.
    """

    path: Path
    identity: RunIdentity
    resolved: dict[str, Any]
    force: bool = False
    is_main: bool = field(default_factory=lambda: _is_main_process())
    _lock: TextIOWrapper | None = field(default=None, init=False, repr=False)

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def resume_from(self) -> Path | None:
        """The checkpoint to go on from, None at a start. Says the same in every process of a distributed run."""
        return self.last_checkpoint if self.last_checkpoint.is_file() and not self._finished_file.is_file() else None

    @property
    def is_finished(self) -> bool:
        return self._finished_file.is_file()

    @property
    def _finished_file(self) -> Path:
        return self.path / "finished.json"

    @property
    def _run_file(self) -> Path:
        return self.path / "run.json"

    def __enter__(self) -> "RunDirectory":
        if not self.is_main:
            return self
        self.path.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._check_or_clear()
        except BaseException:
            self._release_lock()
            raise
        (self.path / "checkpoints").mkdir(exist_ok=True)
        for partial in self.path.rglob(".*.partial"):
            partial.unlink(missing_ok=True)  # of a write that was killed
        if not self._run_file.is_file():
            identity = {**vars(self.identity), "overrides": list(self.identity.overrides)}
            write_json(self._run_file, {"identity": identity, "config": self.resolved})
        return self

    def __exit__(self, *exception: object) -> None:
        self._release_lock()

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished and keep its last figures."""
        if self.is_main:
            write_json(self._finished_file, summary)

    def _check_or_clear(self) -> None:
        if self.is_finished:
            if not self.force:
                raise ValueError(
                    f"{self.path} holds a finished run: give force=true to run it again from the start "
                    "(its files are deleted), another seed, or paths.run=..."
                )
            self._clear()
            return
        if not self._run_file.is_file():
            return
        before = json.loads(self._run_file.read_text())["config"]
        different = _first_difference(_comparable(before), _comparable(self.resolved))
        if different is None:
            return
        if not self.force:
            raise ValueError(
                f"{self.path} holds an unfinished run with another {different}: give force=true to start over "
                "(its files are deleted), or paths.run=..."
            )
        self._clear()

    def _clear(self) -> None:
        # Checkpoints first and the mark of a finished run last: a kill in between leaves nothing to resume from.
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        for path in sorted(self.path.iterdir()):
            if path.name in (".lock", self._finished_file.name):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._finished_file.unlink(missing_ok=True)

    def _take_lock(self) -> None:
        self._lock = (self.path / ".lock").open("a+")
        try:
            # A POSIX lock and not flock: loader workers are forks, and would keep flock's lock after a kill.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            holder = self._lock.read().strip()
            self._lock.close()
            self._lock = None
            raise ValueError(f"{self.path} is in use by another run ({holder or 'unknown process'})") from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._lock.flush()

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def open_run(
    command: str, resolved: dict[str, Any], overrides: Sequence[str], *, force: bool, runs: str, run: str | None
) -> RunDirectory:
    """Return the directory of this command's run, not yet entered.

    Args:
        command: name of the entry point.
        resolved: the composed config as plain values, `seed` among them.
        overrides: as given on the command line, Hydra's own left out.
        force: delete a finished run, or one whose config differs, and start over.
        runs: root of all runs.
        run: a directory chosen by the user, or None.
    """
    identity = RunIdentity.from_overrides(command, overrides, int(resolved["seed"]))
    path = Path(run) if run else Path(runs) / identity.folder()
    return RunDirectory(path.absolute(), identity, resolved, force)


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in ("paths", "force")}
    group, _, name = _WITHOUT_EFFECT.partition(".")
    if isinstance(kept.get(group), dict):
        kept[group] = {key: value for key, value in kept[group].items() if key != name}
    return kept


def _first_difference(old: Any, new: Any, key: str = "") -> str | None:
    """Name the first key at which two configs differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            path = f"{key}.{name}" if key else name
            if name not in old or name not in new:
                return f"{path} ({old.get(name, 'absent')} there, {new.get(name, 'absent')} now)"
            found = _first_difference(old[name], new[name], path)
            if found:
                return found
        return None
    return None if old == new else f"{key} ({old} there, {new} now)"


def _is_main_process() -> bool:
    """Tell whether this is the first process of a distributed run, before any process group exists."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
