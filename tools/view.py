"""Draw a sweep of any dataset, with boxes and flow where it has them, and count what is in it.

python tools/view.py dataset=simulator_labelled index=3 output=sweep.png
python tools/view.py dataset=kitti_object dataset.root=/data/kitti index=0 color=intensity
"""

from omegaconf import DictConfig

from equilidar.training.cli import entry_point


@entry_point("view")
def main(cfg: DictConfig) -> None:
    """Write the picture and print the counts."""
    from hydra.utils import instantiate

    from equilidar.report.pictures import save_picture, sweep_picture
    from equilidar.report.sweep_counts import describe
    from equilidar.structures import SweepPair

    dataset = instantiate(cfg.dataset, _convert_="all")
    if not 0 <= cfg.index < len(dataset):
        raise ValueError(f"index must lie in 0..{len(dataset) - 1}, got {cfg.index}")
    item = dataset[cfg.index]
    style = {"radius": cfg.radius, "color": cfg.color}
    if isinstance(item, SweepPair):
        figure = sweep_picture(item.source, flow=item.flow, target_T_sensor=item.target_T_source, **style)
        print(describe(item.source))
    else:
        figure = sweep_picture(item.sweep, boxes=item.boxes, class_names=dataset.class_names, **style)
        print(describe(item.sweep, item.boxes, dataset.class_names))
    save_picture(figure, cfg.output)
    print(f"picture: {cfg.output}")


if __name__ == "__main__":
    main()
