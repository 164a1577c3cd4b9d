import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from equilidar.objectives import CompositeObjective, FlowEquivariance, PointContrast, RotationClassification
from equilidar.objectives.reduction import all_processes_sum, masked_mean, num_processes

from .toy import ToyEncoder, encode_pair, target_copy, views


def test_masked_mean_is_the_mean_of_what_counts():
    values = torch.tensor([1.0, 2.0, 6.0, math.nan], requires_grad=True)
    assert masked_mean(values[:3]) == 3
    assert masked_mean(values, torch.tensor([True, False, True, False])) == 3.5
    assert masked_mean(values, torch.tensor([1.0, 0.5, 0.0, 0.0])) == 2 / 1.5
    assert masked_mean(values[:3], count=torch.tensor(18)) == 0.5
    masked_mean(values, torch.tensor([1.0, 0.5, 0.0, 0.0])).backward()
    assert values.grad.tolist() == pytest.approx([1 / 1.5, 0.5 / 1.5, 0.0, 0.0])


def test_nothing_to_average_is_zero_with_zero_gradient():
    for num, weights in ((3, torch.zeros(3)), (0, None)):
        values = torch.ones(num, requires_grad=True)
        mean = masked_mean(values, weights)
        mean.backward()
        assert mean == 0 and values.grad.eq(0).all()


def test_alone_there_is_one_process():
    assert num_processes() == 1 and all_processes_sum(torch.tensor(3.0)) == 3


SEEDS = ((1, 2, 3), (4,))


def composite(encoder: ToyEncoder) -> CompositeObjective:
    torch.manual_seed(1)
    small = {"features": encoder.feature_info}
    return CompositeObjective(
        {
            "contrast": PointContrast(level="conv4", projector=(16, 8), **small),
            "summed": PointContrast(level="bev", projector=(), reduction="sum", weight=0.01, **small),
            "rotation": RotationClassification(hidden=(16,), **small),
            "flow": FlowEquivariance(projector=(16, 8), predictor=(8, 8), normaliser="valid", weight=30.0, **small),
            "printed": FlowEquivariance(projector=(16, 8), predictor=(8, 8), cells="dense", weight=1.0, **small),
        }
    )


def losses_and_gradients(*seeds: int) -> dict[str, torch.Tensor]:
    """Return terms, metrics and gradients of one step over the scenes of `seeds`."""
    torch.manual_seed(0)
    encoder = ToyEncoder()
    objective = composite(encoder)
    out = objective(encode_pair(views(*seeds), encoder, target_copy(encoder)))
    out.total().backward()
    parameters = {**dict(encoder.named_parameters()), **dict(objective.named_parameters())}
    gradients = {f"gradient {name}": p.grad for name, p in parameters.items() if p.grad is not None}
    return {**{name: term.detach() for name, term in out.terms.items()}, **out.metrics, **gradients}


def _run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    values = losses_and_gradients(*SEEDS[rank])
    for value in values.values():
        dist.all_reduce(value)
        value /= 2  # what DDP does to gradients and the logger to values
    if rank == 0:
        torch.save(values, f"{folder}/values.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_losses_and_gradients_of_one(tmp_path: Path):
    # Three scenes on one process and one on the other: a mean of two means would be another number.
    mp.spawn(_run, (str(tmp_path),), nprocs=2)
    together, alone = torch.load(tmp_path / "values.pt", weights_only=True), losses_and_gradients(1, 2, 3, 4)
    assert together.keys() == alone.keys() and len(alone) > 30
    steepest = max(float(value.norm()) for name, value in alone.items() if name.startswith("gradient"))
    for name, value in alone.items():
        # By norm: single entries are differences of large numbers, and so are whole gradients that are truly zero (of
        # a bias that a BatchNorm subtracts again).
        noise = 1e-5 * steepest if name.startswith("gradient") else 1e-6
        assert (together[name] - value).norm() <= 1e-4 * value.norm() + noise, name
