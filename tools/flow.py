"""Scene flow over a dataset: cache it beside the sweeps, or measure estimators against the truth.

python tools/flow.py dataset=nuscenes dataset.root=DIR flow=icp_flow [dry_run=true]
python tools/flow.py mode=evaluate dataset=simulator dataset.seed=7 num_pairs=50 'estimators=[rigid,nearest]' \
    output=FILE.json
"""

from pathlib import Path

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("flow")
def main(cfg: DictConfig) -> None:
    """Do what `mode` says."""
    modes = {"cache": _cache, "evaluate": _evaluate}
    if cfg.mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(modes)}, got {cfg.mode!r}")
    modes[cfg.mode](cfg)


def _cache(cfg: DictConfig) -> None:
    raise ValueError("later")


def _evaluate(cfg: DictConfig) -> None:
    from hydra.utils import instantiate

    from equilidar.data.labelled_pairs import labelled_pairs
    from equilidar.flow_runs.comparison import FlowComparison
    from equilidar.training.json_file import write_json
    from equilidar.training.options import named_options

    options = {"": cfg.flow}
    if cfg.estimators is not None:
        options = named_options("flow", "flow", list(cfg.estimators), dict(cfg.settings))
    estimators = {name: instantiate(option, _convert_="all") for name, option in options.items()}
    pairs = labelled_pairs(instantiate(cfg.dataset, _convert_="all"))
    run = FlowComparison(
        {name or one.name: one for name, one in estimators.items()},
        pairs,
        instantiate(cfg.points),
        num_pairs=cfg.num_pairs,
        device=cfg.device,
    )
    print(run.table())
    if cfg.output is not None:
        write_json(Path(cfg.output), run.summaries())
    folder = cfg.pictures or (cfg.output and Path(cfg.output).with_suffix(""))
    for path in run.save_pictures(Path(folder), cfg.num_pictures) if folder else []:
        print(f"picture: {path}")


if __name__ == "__main__":
    main()
