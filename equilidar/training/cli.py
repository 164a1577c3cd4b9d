"""Entry points: Hydra composition with errors that fit on one line.

Imports neither torch nor Lightning, so that a typo is answered at once; tools import what is heavy inside `main`.
"""

import dis
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from equilidar.training.known_keys import explain_override, missing_keys
from equilidar.training.quiet_pipe import quiet_pipe

if TYPE_CHECKING:
    from equilidar.training.run_directory import RunDirectory

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = PACKAGE.parent / "configs"

Main = Callable[[DictConfig], None]


class MissingValueError(ValueError):
    """A config value that the user must give was not given."""


def entry_point(
    config_name: str, check: Callable[[dict[str, Any]], None] = lambda config: None
) -> Callable[[Main], Callable[[], None]]:
    """Make `main(cfg)` a command that composes `configs/<config_name>.yaml` and the overrides on the command line.

    The command works from any folder. What a user can set right is one line on stderr and exit code 2: an unknown
    override key (with the nearest known one), a `???` value that was not given, errors that our own code raises on
    purpose, files that cannot be read. Anything else is a bug and keeps its traceback (exit code 1).
    EQUILIDAR_TRACEBACK=1 shows the traceback of either kind. Struct mode stays on.

    Usage:
        @entry_point("pretrain")
        def main(cfg: DictConfig) -> None: ...

        if __name__ == "__main__":
            main()

    Args:
        config_name: entry config, which should list `- hydra: default` among its defaults.
        check: given the composed config as plain values, before anything else; refuses it by a ValueError.
    """

    def decorate(task: Main) -> Callable[[], None]:
        @functools.wraps(task)
        def checked(cfg: DictConfig) -> None:
            logging.captureWarnings(True)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                _run(task, cfg, check)
                return
            # Here rather than below: Hydra writes a line of its own about an exception that passes through it.
            try:
                _run(task, cfg, check)
            except Exception as error:
                _report(error, config_name)

        command = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(checked)

        @functools.wraps(task)
        def main() -> None:
            # Without this, Hydra prints and exits by itself.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            try:
                command()
            except KeyboardInterrupt:
                print("interrupted", file=sys.stderr)
                raise SystemExit(130) from None
            except Exception as error:
                _report(error, config_name)

        return main

    return decorate


def open_run(cfg: DictConfig, command: str) -> "RunDirectory":
    """Return the directory of the run that `cfg` (with `seed`, `force` and `paths`) describes, not yet entered."""
    from equilidar.training import run_directory

    resolved = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    overrides = list(HydraConfig.get().overrides.task)
    return run_directory.open_run(command, resolved, overrides, force=cfg.force, runs=cfg.paths.runs, run=cfg.paths.run)


def one_line(error: BaseException, config_name: str, overrides: list[str]) -> str | None:
    """Return what to tell the user, or None if the error is a bug of ours."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return _about_instantiation(error, config_name, overrides)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explain_override(error, str(CONFIGS), config_name, overrides)
    if isinstance(error, OSError) or (isinstance(error, ValueError | RuntimeError | ImportError) and _is_ours(error)):
        return " ".join(str(error).split())
    return None


def _run(task: Main, cfg: DictConfig, check: Callable[[dict[str, Any]], None]) -> None:
    check(cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False)))
    missing = missing_keys(cfg)
    if missing:
        raise MissingValueError(f"{', '.join(missing)} must be given: add {' '.join(f'{key}=...' for key in missing)}")
    OmegaConf.to_container(cfg, resolve=True)  # an interpolation that leads nowhere shows now, not in an hour
    with quiet_pipe():
        task(cfg)


def _report(error: Exception, config_name: str) -> NoReturn:
    line = None if os.environ.get("EQUILIDAR_TRACEBACK") == "1" else one_line(error, config_name, sys.argv[1:])
    if line is None:
        raise error
    print(f"error: {line}", file=sys.stderr)
    raise SystemExit(2) from None


def _is_ours(error: BaseException) -> bool:
    """Tell whether a `raise` statement of this package made the error, and not, say, a matrix product in it."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    raised = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    folder = Path(code.co_filename).resolve()
    return raised and (PACKAGE in folder.parents or PACKAGE.parent / "tools" in folder.parents)


def _about_instantiation(error: InstantiationException, config_name: str, overrides: list[str]) -> str | None:
    cause = error.__cause__
    assert cause is not None
    where = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else ""
    if isinstance(cause, TypeError) and "argument" in str(cause):
        # A constructor that does not know an argument, or misses one: the config names it.
        return f"{where or 'config'}: {cause}"
    if "Error locating target" in str(error):
        return " ".join(str(error).split(", set env var")[0].split()) + (f" ({where})" if where else "")
    if not isinstance(cause, Exception):
        return None
    line = one_line(cause, config_name, overrides)
    return line and (f"{where}: {line}" if where and where not in line else line)
