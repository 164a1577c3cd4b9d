"""Finetune a detector: python tools/finetune.py +experiment=... init=scratch | pretrained | frozen [KEY=VALUE ...]."""

from omegaconf import DictConfig

from equilidar.training.cli import entry_point, open_run


@entry_point("finetune")
def main(cfg: DictConfig) -> None:
    """Build the parts, load the backbone, fit, keep the best detector and its figures."""
    # Imported here: a typo in an override is answered before torch is loaded.
    from functools import partial

    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from pytorch_lightning import seed_everything

    from equilidar.checkpoint import load_backbone
    from equilidar.checkpoint.detector import save_detector
    from equilidar.training.best import KeepBest
    from equilidar.training.finetune import FinetuneModule
    from equilidar.training.guards import FaultWatch
    from equilidar.training.launch import finish, fit, step_to_resume
    from equilidar.training.loaders import SweepLoaders
    from equilidar.training.provenance import record
    from equilidar.training.scoring import scorer_for

    parts = instantiate(cfg, _convert_="all")
    seed_everything(cfg.seed, verbose=False)
    train, validation = parts["labels"](parts["dataset"]), parts["validation"]
    backbone = parts["backbone"](in_channels=3 + len(train.contract.channels))
    detector = parts["detector"](backbone=backbone, class_names=train.class_names)
    scorer = scorer_for(validation, detector.classes, backbone.grid)
    paste = parts["gt_sampling"](train)
    how = {name: parts[name] for name in ("optimizer", "schedule", "backbone_lr")}
    how |= {"frozen": cfg.init.mode == "frozen", "average": parts["ema"]}
    module = FinetuneModule(detector, parts["augment"], scorer, **how)
    with open_run(cfg, "finetune") as run:
        scratch = cfg.init.mode == "scratch"
        weights = "" if scratch else load_backbone(cfg.init.path, backbone, train.contract).content_hash
        data = {"train": train.provenance(), "validation": validation.provenance()}
        pasted = None if paste is None else paste.provenance()
        provenance = record(run, data, init=cfg.init.mode, backbone_hash=weights, gt_sampling=pasted)
        config = {name: OmegaConf.to_container(cfg[name], resolve=True) for name in ("grid", "backbone", "detector")}
        about = {"class_names": train.class_names, "contract": train.contract, "provenance": provenance}
        best = KeepBest(run, partial(save_detector, detector=module.evaluated, config=config, **about), validation)
        callbacks = parts["callbacks"]
        loggers = [make(run=run, from_step=step_to_resume(run)) for make in parts["logger"].values()]
        watch = FaultWatch(run, callbacks["faults"])
        trainer = parts["trainer"](
            run=run, loggers=loggers, callbacks=[callbacks["progress"], watch, best, callbacks["save"](run)]
        )
        loading = {"seed": cfg.seed, "validation": validation, "transform": paste, **parts["loader"]}
        fit(trainer, module, SweepLoaders(train, "labelled", **loading), run)
        best.measure_jitter(scorer)
        finish(trainer, run, {"best_headline": best.best, "best_step": best.best_step})


if __name__ == "__main__":
    main()
