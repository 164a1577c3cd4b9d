"""Scene flow over a dataset: cache it beside the sweeps, or measure estimators against the truth.

python tools/flow.py dataset=nuscenes dataset.root=DIR flow=icp_flow [dry_run=true]
python tools/flow.py mode=evaluate dataset=simulator dataset.seed=7 num_pairs=50 estimators=[rigid,nearest] output=FILE
"""

from omegaconf import DictConfig

from equilidar.training.cli import entry_point
from equilidar.training.waiting import wait_passively


@entry_point("flow")
def main(cfg: DictConfig) -> None:
    """Do what `mode` says."""
    modes = {"cache": _cache, "evaluate": _evaluate}
    if cfg.mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(modes)}, got {cfg.mode!r}")
    wait_passively()
    modes[cfg.mode](cfg)


def _cache(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    from equilidar.flow_runs.caching import Caching
    from equilidar.flow_runs.places import beside

    parts = instantiate(cfg, _convert_="all")
    options = {key: parts[key] for key in ("num_workers", "num_pairs", "device", "faults", "check_poses")}
    options["beside"] = beside(cfg.dataset.get("root"), cfg.paths.runs)
    caching = Caching(parts["dataset"], parts["flow"], cfg.output, **options)
    print(caching.describe(estimate := caching.estimate()), flush=True)
    if not cfg.dry_run:
        caching.check_space(estimate)
        print(caching.run())


def _evaluate(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    from equilidar.data.labelled_pairs import labelled_pairs
    from equilidar.flow_runs.comparison import FlowComparison
    from equilidar.training.options import named_options

    options = {"": cfg.flow}
    if cfg.estimators is not None:
        options = named_options("flow", "flow", list(cfg.estimators), dict(cfg.settings))
    made = {name: instantiate(option, _convert_="all") for name, option in options.items()}
    estimators = {name or one.name: one for name, one in made.items()}
    pairs, points = labelled_pairs(instantiate(cfg.dataset, _convert_="all")), instantiate(cfg.points)
    run = FlowComparison(estimators, pairs, points, num_pairs=cfg.num_pairs, device=cfg.device, poses=cfg.check_poses)
    print(run.table(), flush=True)
    for path in run.write(cfg.output, cfg.pictures, cfg.num_pictures):
        print(f"written: {path}")


if __name__ == "__main__":
    main()
