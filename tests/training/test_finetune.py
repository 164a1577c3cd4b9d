"""The finetuning step: averaged weights, rates by group, blame, and float32 where it counts."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from equilidar.structures import LossTerms
from equilidar.training.ema import WeightAverage
from equilidar.training.schedules import cosine, one_cycle
from equilidar.training.step_record import NonFiniteError
from tests.training.tiny_finetuning import batches, labelled, tiny_detector, tiny_module, train


class Watch(pl.Callback):
    """Keeps the weights after each step, and the rates of each group."""

    def __init__(self) -> None:
        self.weights: list[list[torch.Tensor]] = []
        self.rates: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        detector = pl_module.detector
        assert isinstance(detector, nn.Module)
        self.weights.append([parameter.detach().clone() for parameter in detector.parameters()])

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.rates.append({group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups})


def test_the_average_follows_its_formula_and_is_what_is_evaluated(tmp_path: Path) -> None:
    module, watch = tiny_module(average=WeightAverage(0.5)), Watch()
    with torch.no_grad():  # as a backbone's file is loaded after construction
        for parameter in module.detector.parameters():
            parameter.add_(0.25)
    expected = [parameter.detach().clone() for parameter in module.detector.parameters()]
    train(module, batches(4), tmp_path, watch)
    for step, weights in enumerate(watch.weights):
        stays = min(0.5, (1 + step) / (10 + step))
        expected = [stays * old + (1 - stays) * new for old, new in zip(expected, weights, strict=True)]
    averaged = list(module.evaluated.parameters())
    for ours, theirs in zip(averaged, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not any(torch.equal(a, b) for a, b in zip(averaged, module.detector.parameters(), strict=True))
    assert not module.evaluated.training and not any(parameter.requires_grad for parameter in averaged)
    for ours, theirs in zip(module.evaluated.buffers(), module.detector.buffers(), strict=True):
        assert torch.equal(ours, theirs)


def test_without_an_average_the_detector_itself_is_evaluated() -> None:
    module = tiny_module()
    assert module.evaluated is module.detector
    assert not any(name.startswith("averaged") for name in module.state_dict())


def test_a_resumed_run_keeps_the_average(tmp_path: Path) -> None:
    whole = tiny_module(average=WeightAverage(0.9))
    train(whole, batches(3), tmp_path, max_epochs=2)
    first = tiny_module(average=WeightAverage(0.9))
    train(first, batches(3), tmp_path).save_checkpoint(tmp_path / "last.ckpt")
    second = tiny_module(average=WeightAverage(0.9), detector=tiny_detector(seed=5))
    train(second, batches(3), tmp_path, checkpoint=tmp_path / "last.ckpt", max_epochs=2)
    for name, value in whole.evaluated.state_dict().items():
        assert torch.equal(value, second.evaluated.state_dict()[name]), name


@pytest.mark.parametrize("schedule", [one_cycle, cosine])
def test_the_backbone_learns_by_its_factor_at_every_step(schedule: Any, tmp_path: Path) -> None:
    module, watch = tiny_module(schedule, backbone_lr=0.1), Watch()
    trainer = train(module, batches(5), tmp_path, watch)
    assert len(watch.rates) == 5 and len({rates["detector"] for rates in watch.rates}) > 1
    for rates in watch.rates:
        assert rates["backbone"] == pytest.approx(0.1 * rates["detector"])
    groups = {group["name"]: len(group["params"]) for group in trainer.optimizers[0].param_groups}
    assert groups["backbone"] == len(list(module.detector.backbone.parameters()))
    assert sum(groups.values()) == len(list(module.detector.parameters()))


def test_a_frozen_backbone_has_no_group_and_a_factor_must_be_positive(tmp_path: Path) -> None:
    frozen = train(tiny_module(frozen=True), batches(1), tmp_path)
    assert [group["name"] for group in frozen.optimizers[0].param_groups] == ["detector"]
    with pytest.raises(ValueError, match=r"backbone_lr must be positive, got 0.*init=frozen"):
        train(tiny_module(backbone_lr=0), batches(1), tmp_path)


def test_the_sample_that_is_not_finite_is_named_with_its_term(tmp_path: Path) -> None:
    module = tiny_module()
    loaded = batches(2)
    batch = loaded[1].batch
    assert batch is not None
    batch.points.features[-1] = torch.nan
    with pytest.raises(
        NonFiniteError, match=r"not finite at step 1: .*not finite by itself: 1/1: .*classification.*; batch saved"
    ) as caught:
        train(module, loaded, tmp_path)
    assert "itself: 1/0" not in str(caught.value)


def test_a_batch_in_which_no_sample_is_to_blame_alone_names_none(tmp_path: Path) -> None:
    module = tiny_module()
    whole = module.loss_terms

    def only_together(batch: Any) -> LossTerms:
        terms = whole(batch)
        bad = torch.tensor(float("inf")) if batch.batch_size > 1 else torch.tensor(0.0)
        return LossTerms({**terms.terms, "pairs": bad}, {**terms.weights, "pairs": 1.0})

    module.loss_terms = only_together
    with pytest.raises(NonFiniteError, match=r"pairs = inf.*samples: 0/0, 0/1; batch saved"):
        train(module, batches(1), tmp_path)


def test_labelled_batches_split_into_what_they_were_made_of() -> None:
    batch = batches(1)[0].batch
    assert batch is not None
    parts = batch.split()
    assert [part.keys for part in parts] == [("0/0",), ("0/1",)]
    for part, key in zip(parts, batch.keys, strict=True):
        assert torch.equal(part.points.xyz, labelled(key).sweep.xyz)
        assert torch.equal(part.boxes.center, labelled(key).boxes.center)


def test_under_bfloat16_losses_are_float32_and_statistics_stay_so(tmp_path: Path) -> None:
    batch = batches(1)[0].batch
    assert batch is not None
    plain, mixed = tiny_module(), tiny_module()
    expected = plain.loss_terms(batch)
    with torch.autocast("cpu", torch.bfloat16):
        terms = mixed.loss_terms(batch)
    for name, term in terms.terms.items():
        assert term.dtype == torch.float32
        assert float(term.detach()) == pytest.approx(float(expected.terms[name].detach()), rel=0.03), name
    terms.total().backward()
    for name, parameter in mixed.named_parameters():
        assert parameter.grad is None or parameter.grad.dtype == torch.float32, name
    theirs = dict(plain.named_buffers())
    for name, buffer in mixed.named_buffers():
        if "running" in name:
            assert buffer.dtype == torch.float32
            torch.testing.assert_close(buffer, theirs[name], rtol=0.05, atol=0.02)


def test_a_run_in_mixed_precision_learns_in_float32_weights(tmp_path: Path) -> None:
    module = tiny_module(average=WeightAverage(0.9))
    train(module, batches(2), tmp_path, precision="bf16-mixed")
    floats = [value for value in module.state_dict().values() if value.is_floating_point()]
    assert floats and all(value.dtype == torch.float32 and value.isfinite().all() for value in floats)
