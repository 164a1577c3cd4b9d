"""Distil a flow network from an estimator's flow on your own unlabelled pairs; it then runs as flow=feedforward.

python tools/flow.py    dataset=packed dataset.root=STORE flow=icp_flow
python tools/distill.py dataset=packed dataset.root=STORE flow.directory=CACHE output=flow.safetensors
python tools/pretrain.py ... flow=feedforward flow.path=flow.safetensors
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from equilidar.training.cli import entry_point


@entry_point("distill")
def main(cfg: DictConfig) -> None:
    """Read pairs and their flow, train, write the network."""
    from hydra.utils import instantiate

    from equilidar.data.packing_plan import spread
    from equilidar.data.protocols import provenance_of
    from equilidar.flow.feedforward import FlowNetworkOrigin, save_flow_network
    from equilidar.flow.protocol import settings_of
    from equilidar.flow_runs.distillation_checkpoint import DistillationCheckpoint
    from equilidar.flow_runs.distilling import StepReport
    from equilidar.flow_runs.lessons import load_examples
    from equilidar.nn.device import device_of

    parts = instantiate(cfg, _convert_="all")
    dataset, teacher = parts["dataset"], parts["flow"]
    indices = spread(len(dataset), min(cfg.num_pairs or len(dataset), len(dataset)))
    print(f"{teacher.name}: reading the flow of {len(indices)} pairs of {dataset.name}", flush=True)
    examples = load_examples(dataset, indices, teacher, parts["faults"])
    provenance = {
        "settings": settings_of(teacher),
        "data": provenance_of(dataset),
        "distillation": OmegaConf.to_container(cfg.distillation),
        "num_pairs": len(examples),
    }
    identity = {**provenance, "teacher": teacher.name, "network": parts["network"].as_dict()}
    checkpoint = DistillationCheckpoint(Path(f"{cfg.output}.checkpoint"), identity, cfg.checkpoint_every)
    with StepReport(cfg.distillation.steps) as report:
        network = parts["distillation"](parts["network"], examples, device_of(cfg.device), report, checkpoint)
    save_flow_network(cfg.output, network, FlowNetworkOrigin(teacher.name, teacher.from_labels, provenance))
    checkpoint.remove()
    labels = " (from labels)" if teacher.from_labels else ""
    print(f"{cfg.output}: imitates {teacher.name}{labels}; to use it: flow=feedforward flow.path={cfg.output}")


if __name__ == "__main__":
    main()
