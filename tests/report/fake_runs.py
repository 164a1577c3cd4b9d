"""Run directories as training writes them, made up."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np


def figures(car: float, *, objects: int = 120) -> dict[str, Any]:
    """Figures as `evaluate_sweeps` returns them; `car` is the 3D R40 moderate AP at IoU 0.5."""

    def entry(value: float) -> dict[str, list[float]]:
        levels = [value + 8, value, value - 6]
        return {"AP_R11": [level + 1 for level in levels], "AP_R40": levels, "recall": [90.0, 80.0, 70.0]}

    result: dict[str, Any] = {}
    for name, value in (("car", car), ("pedestrian", car - 12), ("cyclist", car - 9)):
        result[name] = {"num_ground_truth": [objects // 2, objects, objects + 40]}
        for overlap, loss in ((0.5, 0), (0.7, 18)):
            result[name] |= {f"bev@{overlap}": entry(value - loss + 4), f"3d@{overlap}": entry(value - loss)}
    return result


def write_run(
    folder: Path,
    *,
    command: str,
    seed: int = 0,
    init: str | None = None,
    ap: float | None = None,
    steps: int = 900,
    experiment: str = "quickstart",
    labels: dict[str, Any] | None = None,
    cliff: float | None = None,
) -> Path:
    """Write a finished run and return its folder.

    `labels` is what a label subset says of itself; `cliff` the spread of R11 under jittered scores, that of R40 is a
    quarter of it.
    """
    rng = np.random.default_rng(seed + steps)
    folder.mkdir(parents=True, exist_ok=True)
    names = ("train/loss", "train/spatial/info_nce", "train/rotation/cross_entropy", "train/flow/regression")
    rows = []
    for step in range(0, steps, 3):
        decay = np.exp(-step / steps * 3)
        row: dict[str, Any] = {"step": step}
        if command == "pretrain":
            row |= {name: (i + 1) * (0.5 + decay) + 0.1 * rng.normal() for i, name in enumerate(names)}
            row["train/rotation/accuracy"] = 0.05 + 0.7 * (1 - decay) + 0.03 * rng.normal()
            row["train/spatial/pairs"] = 512 + 20 * rng.normal()
            row["train/flow/paired_points"] = 0.8 + 0.02 * rng.normal()
            if step % 90 == 0:
                row["monitor/points/std"] = 0.08 + 0.002 * rng.normal()
                row["monitor/points/effective_rank"] = 40 + 30 * (1 - decay) + rng.normal()
                row["monitor/gradient/flow"] = 2 * decay + 0.1 * rng.random()
        else:
            row |= {"train/loss": 2 * decay + 0.3 + 0.05 * rng.normal(), "train/class": decay + 0.02 * rng.normal()}
            if step % 150 == 0 and ap is not None:
                row["val/headline"] = ap * (1 - decay)
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    config: dict[str, Any] = {"seed": seed, "optimizer": {"lr": 0.003}, "objective": {"rotation": {"num_classes": 10}}}
    if init is not None:
        config["init"] = init
    attempt = {
        "started": "2026-01-01T12:00:00+00:00",
        "git_commit": "0123456789abcdef",
        "git_is_clean": True,
        "packages": {"python": "3.11.7", "torch": "2.13.0"},
        "hardware": {"cores": 2, "gpus": []},
    }
    provenance = {
        "identity": {"command": command, "experiment": experiment, "overrides": [], "seed": seed},
        "config": config,
        "data": {"train": {"name": "simulator", "num_samples": 200, "hash": "aa11"}},
        "attempts": [attempt],
    }
    if labels is not None:
        provenance["data"]["train"]["labels"] = labels
    if cliff is not None and ap is not None:
        sizes = {"AP_R40": [cliff / 4] * 3, "AP_R11": [cliff] * 3}
        spread = {n: {m: sizes for m in own if m != "num_ground_truth"} for n, own in figures(ap).items()}
        content = {"sigma": 0.1, "repeats": 10, "seed": 0, "spread": spread}
        (folder / "score_jitter.json").write_text(json.dumps(content))
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "run.json").write_text(json.dumps({"config": config}))
    (folder / "finished.json").write_text("{}")
    if ap is not None:
        (folder / "metrics.json").write_text(json.dumps(figures(ap)))
    return folder


def write_study(folder: Path, seeds: int = 3, fractions: tuple[float, ...] = (0.05, 0.1, 0.2)) -> Path:
    """Write scratch and pretrained runs over fractions and label seeds, and one frozen run."""
    rng = np.random.default_rng(0)
    for fraction in fractions:
        for seed in range(seeds):
            labels = {
                "fraction": fraction,
                "seed": seed,
                "mode": "frame",
                "hash": f"{int(1000 * fraction):04x}{seed:012x}",
            }
            hard = rng.normal(0, 2.0)
            for init, gain in (("scratch", 0.0), ("pretrained", 0.4 / fraction)):
                ap = 75 + 8 * np.log10(fraction) + hard + gain + rng.normal(0, 0.6)
                write_run(
                    folder / f"{init}_{fraction:g}_{seed}", command="finetune", seed=seed, init=init, ap=float(ap),
                    steps=300, experiment="second_kitti", labels=labels, cliff=float(rng.uniform(1, 5)),
                )  # fmt: skip
    first = {"fraction": fractions[0], "seed": 0, "mode": "frame", "hash": f"{int(1000 * fractions[0]):04x}{0:012x}"}
    write_run(folder / "frozen", command="finetune", init="frozen", ap=55.0, steps=300, experiment="second_kitti",
              labels=first)  # fmt: skip
    return folder
