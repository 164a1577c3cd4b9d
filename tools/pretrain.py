"""Pretrain a backbone without labels: python tools/pretrain.py +experiment=pretrain_tiny [KEY=VALUE ...]."""

from omegaconf import DictConfig

from equilidar.training.cli import entry_point, open_run
from equilidar.training.label_free import refuse_labels


@entry_point("pretrain", check=refuse_labels)
def main(cfg: DictConfig) -> None:
    """Build the parts, fit, save the backbone."""
    # Imported here: a typo in an override is answered before torch is loaded.
    from hydra.utils import instantiate
    from pytorch_lightning import seed_everything

    from equilidar.checkpoint import save_backbone
    from equilidar.flow import check_teacher
    from equilidar.objectives import CompositeObjective
    from equilidar.training.guards import FaultWatch
    from equilidar.training.launch import finish, fit, step_to_resume
    from equilidar.training.loaders import SweepLoaders
    from equilidar.training.pretrain import PretrainModule
    from equilidar.training.provenance import record

    parts = instantiate(cfg, _convert_="all")
    seed_everything(cfg.seed, verbose=False)
    dataset = parts["dataset"]
    check_teacher(parts["flow"], dataset)
    backbone = parts["backbone"](in_channels=3 + len(dataset.contract.channels))
    objective = CompositeObjective.from_partials(parts["objective"], features=backbone.feature_info)
    module = PretrainModule(
        backbone,
        objective,
        parts["augment"],
        parts["flow"],
        optimizer=parts["optimizer"],
        schedule=parts["schedule"],
        momentum=parts["momentum"],
        monitor_every=cfg.monitor_every,
    )
    with open_run(cfg, "pretrain") as run:
        labels = parts["flow"].from_labels
        provenance = record(run, {"train": dataset.provenance()}, flow_from_labels=labels)
        file = run.path / "backbone.safetensors"
        callbacks = parts["callbacks"]
        save = callbacks["save"](run, also=lambda: save_backbone(file, backbone, dataset.contract, provenance))
        loggers = [make(run=run, from_step=step_to_resume(run)) for make in parts["logger"].values()]
        watch = FaultWatch(run, callbacks["faults"])
        trainer = parts["trainer"](run=run, loggers=loggers, callbacks=[callbacks["progress"], watch, save])
        fit(trainer, module, SweepLoaders(dataset, "pairs", seed=cfg.seed, **parts["loader"]), run)
        finish(trainer, run, {"backbone": str(file)})


if __name__ == "__main__":
    main()
