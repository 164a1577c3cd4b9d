"""Build a gt database of one label subset: python tools/gt_database.py dataset=... labels.seed=1 name=NAME."""

from pathlib import Path

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("gt_database")
def main(cfg: DictConfig) -> None:
    """Cut the objects out, write them, print how many there are and the hash of their labels."""
    from hydra.utils import instantiate

    from equilidar.data.gt_database import build_gt_database

    parts = instantiate({"dataset": cfg.dataset, "labels": cfg.labels}, _convert_="all")
    subset = parts["labels"](parts["dataset"])
    built = build_gt_database(subset, Path(cfg.output))
    for fault in built.faults:
        print(f"not read, so none of its objects is in the database: {fault.key}: {fault.reason}")
    counts = ", ".join(f"{count} {name}" for name, count in built.counts.items())
    size = built.path.stat().st_size / 1e6
    print(f"{built.path}: {counts} of {len(subset)} sweeps, labels {subset.subset.hash}, {size:.1f} MB")


if __name__ == "__main__":
    main()
