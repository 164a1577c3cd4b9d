"""Probe the features of a frozen backbone, beside the same network with random weights.

python tools/probe.py checkpoint=runs/.../backbone.safetensors dataset=simulator_labelled probe=linear|knn
"""

from pathlib import Path

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("probe")
def main(cfg: DictConfig) -> None:
    """Encode the dataset twice, fit the probe on some sequences, judge it on the others, print the figures."""
    from hydra.utils import instantiate

    from equilidar.checkpoint.detector import SavedDetector
    from equilidar.training.conversion import read_ours, rebuild
    from equilidar.training.json_file import write_json
    from equilidar.training.probe import check_points, format_probe, probe_backbone

    saved = read_ours(cfg.checkpoint)
    parts = instantiate(saved.config, _convert_="all") if isinstance(saved, SavedDetector) else {}
    handed = rebuild(saved, parts, cfg.checkpoint)
    dataset = instantiate(cfg.dataset, _convert_="all")
    check_points(handed.contract, dataset)
    how = {key: cfg[key] for key in ("held_out", "seed", "batch_size", "num_workers", "device")}
    figures = probe_backbone(handed.backbone, dataset, instantiate(cfg.probe), **how)
    if cfg.output is not None:
        write_json(Path(cfg.output), {name: own.as_dict() for name, own in figures.items()})
    print(format_probe(figures))


if __name__ == "__main__":
    main()
