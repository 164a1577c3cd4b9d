"""Batch normalisation over processes: two gloo processes against one on the union of their rows."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from equilidar.nn import BatchNorm1d, BatchNorm2d

# Rows of each of two processes, kind of layer, dtype, momentum (None: cumulative average).
CASES: dict[str, tuple[tuple[int, int], str, torch.dtype, float | None]] = {
    "unequal": ((7, 4), "1d", torch.float32, 0.1),
    "2d, cumulative": ((7, 4), "2d", torch.float32, None),
    "one without rows, cumulative": ((6, 0), "1d", torch.float32, None),
    "one row each": ((1, 1), "1d", torch.float32, 0.1),
    "a single row in all": ((0, 1), "1d", torch.float32, 0.1),
    "bfloat16": ((1200, 800), "1d", torch.bfloat16, 1.0),
}
Result = dict[str, torch.Tensor]


def rows_of(seed: int, num: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    # Far from zero: sums of squares would cancel.
    return (torch.randn(num, 3, generator=generator) * 0.5 + 100).to(dtype)


def make(kind: str, momentum: float | None = 0.1) -> BatchNorm1d | BatchNorm2d:
    norm = BatchNorm1d(3, eps=1e-3, momentum=momentum) if kind == "1d" else BatchNorm2d(3, eps=1e-3, momentum=momentum)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, -2.0, 1.5]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, -0.3]))
    return norm


def run(norm: nn.Module, values: torch.Tensor, kind: str) -> dict[str, torch.Tensor]:
    """Two training steps, the gradients of a loss that is a sum over rows, then an evaluation step."""
    shaped = values if kind == "1d" else values.view(-1, 1, 1, 3).permute(0, 3, 1, 2)
    shaped = shaped.detach().clone().requires_grad_()
    norm(shaped * 0.5)
    out = norm(shaped)
    (out.float() ** 3).sum().backward()
    result = {"out": out.detach(), "grad": shaped.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    norm.eval()
    return {
        **result,
        "eval": norm(shaped).detach(),
        "mean": norm.running_mean,
        "var": norm.running_var,
        "tracked": norm.num_batches_tracked,
    }


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for name, (split, kind, dtype, momentum) in CASES.items():
        rows = rows_of(0, sum(split), dtype).split(list(split))[rank]
        results[name] = run(make(kind, momentum), rows, kind)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def distributed(tmp_path_factory) -> dict[str, list[Result]]:
    """Results of both processes for each case."""
    folder = tmp_path_factory.mktemp("norm")
    mp.spawn(worker, (str(folder),), nprocs=2)
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return {name: [results[name] for results in ranks] for name in CASES}


@pytest.mark.parametrize("case", ["unequal", "2d, cumulative", "one without rows, cumulative", "one row each"])
def test_two_processes_are_one_on_the_union(distributed, case):
    parts = distributed[case]
    split, kind, _, momentum = CASES[case]
    reference = nn.BatchNorm1d(3, eps=1e-3, momentum=momentum).double()
    reference.load_state_dict(make(kind).state_dict())
    whole = run(reference, rows_of(0, sum(split)).double(), "1d")
    for name in ("out", "grad", "eval"):
        both = torch.cat([part[name].flatten(1) for part in parts]).double()
        torch.testing.assert_close(both, whole[name], rtol=1e-3, atol=2e-3 if name == "grad" else 2e-4, msg=name)
    for name in ("weight", "bias"):
        both = sum(part[name] for part in parts).double()
        torch.testing.assert_close(both, whole[name], rtol=1e-3, atol=2e-3)
    for name in ("mean", "var", "tracked"):
        assert torch.equal(parts[0][name], parts[1][name]), name
        torch.testing.assert_close(parts[0][name].double(), whole[name].double(), rtol=1e-5, atol=1e-6)


def test_a_single_row_in_all_processes_is_no_statistic(distributed):
    empty, single = distributed["a single row in all"]
    assert empty["out"].shape == (0, 3)
    for part in (empty, single):
        assert torch.equal(part["mean"], torch.zeros(3)) and torch.equal(part["var"], torch.ones(3))
        assert part["tracked"] == 0
    alone = run(make("1d"), rows_of(0, 1), "1d")
    for name in ("out", "grad", "eval", "weight", "bias"):
        torch.testing.assert_close(single[name], alone[name])


def test_statistics_of_bfloat16_rows_are_float32(distributed):
    """Near 100 bfloat16 has steps of 0.5: a mean kept in it could not be right to 1e-3."""
    expected = rows_of(0, 2000, torch.bfloat16).double()
    for result in (run(make("1d", momentum=1.0), expected.bfloat16(), "1d"), *distributed["bfloat16"]):
        assert result["out"].dtype == torch.bfloat16 and result["mean"].dtype == torch.float32
        torch.testing.assert_close(result["mean"].double(), expected.mean(0), rtol=1e-5, atol=0)
        torch.testing.assert_close(result["var"].double(), expected.var(0), rtol=1e-3, atol=0)


def test_one_process_is_torch_to_the_bit():
    ours, theirs = make("1d"), nn.BatchNorm1d(3, eps=1e-3)
    theirs.load_state_dict(ours.state_dict())
    rows = rows_of(1, 9)
    for one, other in zip(run(ours, rows, "1d").items(), run(theirs, rows, "1d").items(), strict=True):
        assert torch.equal(one[1], other[1]), one[0]


@pytest.mark.parametrize("num", [0, 1])
def test_fewer_than_two_rows_use_and_keep_running_statistics(num):
    norm = make("1d")
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    rows = rows_of(0, num).requires_grad_()
    out = norm(rows)
    norm.eval()
    assert torch.equal(out, norm(rows))
    out.sum().backward()
    assert rows.grad is not None and rows.grad.shape == rows.shape
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
