"""The whole way on one small machine: pretrain, finetune twice from the same labels, report."""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equilidar.report.page import write_report
from equilidar.report.run_summary import RunSummary
from equilidar.training.json_file import write_json

REPOSITORY = Path(__file__).resolve().parents[1]
STARTS = ("scratch", "pretrained")
MODERATE = 1


@dataclass(frozen=True)
class Stage:
    """One of the ordinary commands, with a run directory of its own.

    Attributes:
        name: of the run directory.
        command: tool and overrides.
        threads: processor threads that it may use.
    """

    name: str
    command: tuple[str, ...]
    threads: int


def stages(folder: Path, overrides: tuple[str, ...] = ()) -> list[list[Stage]]:
    """Return the stages; those of one inner list run side by side.

    Args:
        folder: the quickstart's folder.
        overrides: for every stage, as for a smaller run in a test.
    """
    cores = os.cpu_count() or 1
    backbone = folder / "pretrain" / "backbone.safetensors"
    inits = {"scratch": ("init=scratch",), "pretrained": ("init=pretrained", f"init.path={backbone}")}
    pretrain = Stage("pretrain", ("tools/pretrain.py", "+experiment=quickstart_pretrain", *overrides), cores)
    finetune = ("tools/finetune.py", "+experiment=quickstart_finetune")
    starts = [Stage(name, (*finetune, *inits[name], *overrides), max(1, cores // 2)) for name in STARTS]
    return [[pretrain], starts]


def run(folder: Path, *, fresh: bool = False, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run all stages that are not finished yet, write report.html and metrics.json, and return the figures.

    Args:
        folder: where everything goes.
        fresh: run finished stages again.
        overrides: see `stages`.

    Raises:
        RuntimeError: a stage failed; its log says why.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for side_by_side in stages(folder, overrides):
        _run_stages(folder, side_by_side, fresh)
    runs = [RunSummary.read(folder / name, name) for name in ("pretrain", *STARTS)]
    metrics = {run.label: _figures(run) for run in runs if run.label in STARTS}
    write_json(folder / "metrics.json", metrics)
    seen = "The detector looks ahead (the grid's range): ground truth elsewhere is drawn, and not asked for."
    page = write_report(folder / "report.html", runs, "equilidar quickstart", [_seeded(runs), seen])
    print(f"\n{format_table(metrics)}\n\n{_seeded(runs)}\n")
    print(f"{(time.monotonic() - began) / 60:.1f} minutes; report: {page}")
    return metrics


def format_table(metrics: dict[str, dict[str, Any]]) -> str:
    """Return the result as text: a row for each start, worse or better."""
    columns = [key for key in next(iter(metrics.values())) if "@" in key]
    lines = [f"{'car, AP R40, moderate':<24}" + "".join(f"{column:>10}" for column in columns)]
    for name, figures in metrics.items():
        values = "".join(f"{figures[column]['AP_R40'][MODERATE]:>10.2f}" for column in columns)
        lines.append(f"{name:<24}{values}")
    return "\n".join(lines)


def _figures(run: RunSummary) -> dict[str, Any]:
    assert run.figures is not None, "finetuning was evaluated"
    return {"seed": run.seed, **run.figures["car"]}


def _seeded(runs: list[RunSummary]) -> str:
    labels = runs[-1].provenance["data"]["train"]
    objects = (runs[-1].figures or {})["car"]["num_ground_truth"][MODERATE]
    return (
        f"One seed, one label subset, the same for both rows: {labels['num_samples']} labelled sweeps "
        f"({labels['labels']['fraction']:.0%}, seed {labels['labels']['seed']}); one pretraining run; "
        f"{objects} held-out moderate cars. A difference between two such rows can be chance."
    )


def _run_stages(folder: Path, side_by_side: list[Stage], fresh: bool) -> None:
    running: list[tuple[Stage, subprocess.Popen[bytes], Path]] = []
    for stage in side_by_side:
        if (folder / stage.name / "finished.json").is_file() and not fresh:
            print(f"{stage.name}: done before (FRESH=1 runs it again)")
            continue
        command = [*stage.command, f"paths.run={folder / stage.name}", *(["force=true"] if fresh else [])]
        print(f"$ python {shlex.join(command)}", flush=True)
        log = folder / f"{stage.name}.log"
        # Passive: threads that spin while they wait take the cores from loader workers and from the stage beside.
        environment = {**os.environ, "OMP_NUM_THREADS": str(stage.threads), "OMP_WAIT_POLICY": "passive"}
        alone = len(side_by_side) == 1
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=REPOSITORY,
                env=environment,
                stdout=None if alone else file,
                stderr=None if alone else subprocess.STDOUT,
            )
        running.append((stage, process, log))
    try:
        _wait(running)
    finally:
        for _, process, _ in running:
            if process.poll() is None:
                process.terminate()


def _wait(running: list[tuple[Stage, "subprocess.Popen[bytes]", Path]]) -> None:
    """Wait for all; say now and then how far those are that write to a log."""
    said = time.monotonic()
    while any(process.poll() is None for _, process, _ in running):
        time.sleep(0.5)
        if len(running) > 1 and time.monotonic() - said > 20:
            said = time.monotonic()
            for stage, _, log in running:
                lines = log.read_text(errors="replace").replace("\r", "\n").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), "starting")
                print(f"  {stage.name:<11}{last.strip()[:120]}", flush=True)
        failed = [stage for stage, process, _ in running if process.poll() not in (None, 0)]
        if failed:
            break
    for stage, process, log in running:
        if process.poll() not in (None, 0):
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise RuntimeError(f"quickstart: stage {stage.name} failed with exit code {process.returncode}\n{tail}")
