"""The pretraining step: what it encodes, skips, refuses and moves."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from equilidar.augment.group import SpatialGroup
from equilidar.augment.pipeline import ViewPipeline
from equilidar.backbones import VoxelBackBone8x
from equilidar.data.faults import Fault, FaultBudget, TooManyFaultsError
from equilidar.data.loading import LoadedBatch
from equilidar.flow import RigidFlow
from equilidar.objectives import CompositeObjective, FlowEquivariance, RotationClassification
from equilidar.structures import GridSpec, LossTerms, SensorContract, Sweep, SweepPair, SweepPairBatch
from equilidar.training.ema import Momentum
from equilidar.training.encoding import encode_views, split_features, to_float32
from equilidar.training.guards import FaultWatch
from equilidar.training.launch import make_trainer
from equilidar.training.pretrain import PretrainModule
from equilidar.training.run_directory import open_run
from equilidar.training.schedules import constant
from equilidar.training.step_record import NonFiniteError

GRID = GridSpec.from_range([0.0, -6.4, -3.0, 12.8, 6.4, 1.0], [0.4, 0.4, 0.1])
CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")


def _batch(num: int = 2) -> SweepPairBatch:
    generator = torch.Generator().manual_seed(0)
    span, low = torch.tensor([12.0, 12.0, 3.0]), torch.tensor([0.5, -6.0, -2.5])

    def sweep(name: str) -> Sweep:
        xyz = torch.rand(400, 3, generator=generator) * span + low
        return Sweep(xyz, torch.rand(400, 1, generator=generator), CONTRACT, name, 0.0)

    eye = torch.eye(4, dtype=torch.float64)
    return SweepPairBatch.collate([SweepPair(sweep(f"log/{i}"), sweep(f"log/{i}+"), eye) for i in range(num)])


def _backbone() -> VoxelBackBone8x:
    torch.manual_seed(0)
    return VoxelBackBone8x(GRID, 4, width=0.25)


class ReadsViewA(nn.Module):
    """An objective of a user's own: the features of view a shall be small."""

    reads = frozenset({"a"})

    def __init__(self, factor: float = 1.0):
        super().__init__()
        self.factor, self.encoded_source = factor, None

    def forward(self, pair):
        self.encoded_source = pair.source
        return LossTerms({"size": pair.a.last.features.square().mean() * self.factor}, {"size": 1.0})

    def ema_pairs(self):
        return []

    def embeddings(self, pair):
        return {}


class NeverAsked:
    """A flow for objectives that do not read the source."""

    name, from_labels = "never", False

    def __call__(self, batch):
        raise AssertionError("flow was asked for although no objective reads the source")


def _module(objective, flow=None, momentum=None, **options) -> PretrainModule:
    return PretrainModule(
        options.pop("backbone", None) or _backbone(),
        objective,
        ViewPipeline(GRID, SpatialGroup()),
        flow or RigidFlow(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        schedule=constant,
        momentum=momentum or Momentum(0.9, 0.9),
        **options,
    )


def _train(module, batches, tmp_path, steps=1, callbacks=()):
    with open_run("pretrain", {"seed": 0}, [], force=False, runs=str(tmp_path), run=None) as run:
        trainer = make_trainer(
            run, callbacks=[make(run) for make in callbacks], accelerator="cpu", max_steps=steps,
            enable_progress_bar=False,
        )  # fmt: skip
        loader = DataLoader(batches, batch_size=None)
        trainer.fit(module, loader)
        return run


def _both(backbone) -> CompositeObjective:
    features = backbone.feature_info
    flow = FlowEquivariance(features=features, projector=[8, 8], predictor=[8, 8])
    return CompositeObjective({"rotation": RotationClassification(features=features, hidden=[8]), "flow": flow})


def test_views_encoded_together_are_the_views_encoded_alone():
    backbone = _backbone().eval()
    pipeline, batch = ViewPipeline(GRID, SpatialGroup(), temporal="separate"), _batch(3)
    views = pipeline(batch, RigidFlow()(batch))
    pair = encode_views(views, backbone, backbone)
    assert views.temporal is not None and views.source is not None
    shown = {"a": views.a, "b": views.b, "temporal": views.temporal, "source": views.source.view}
    for name, view in shown.items():
        alone = backbone.encode(view.points)
        for stage, voxels in getattr(pair, name).stages.items():
            assert torch.equal(voxels.coords, alone.stages[stage].coords)
            assert voxels.batch_size == 3 and voxels.shape == alone.stages[stage].shape
            torch.testing.assert_close(voxels.features, alone.stages[stage].features)


def test_an_uneven_split_is_an_error():
    features = _backbone().eval().encode(_batch(3).target)
    with pytest.raises(ValueError, match="3 items cannot be split into 2"):
        split_features(features, 2)


def test_features_are_float32_under_bf16():
    backbone, batch = _backbone(), _batch()
    views = ViewPipeline(GRID, SpatialGroup())(batch, RigidFlow()(batch))
    with torch.autocast("cpu", torch.bfloat16):
        raw = backbone.encode(views.a.points)
        pair = encode_views(views, backbone, backbone)
    assert {voxels.features.dtype for voxels in to_float32(raw).stages.values()} == {torch.float32}
    for encoded in (pair.a, pair.b, pair.source):
        assert {voxels.features.dtype for voxels in encoded.stages.values()} == {torch.float32}


def test_what_is_not_read_is_neither_asked_for_nor_encoded(tmp_path):
    objective = ReadsViewA()
    module = _module(objective, flow=NeverAsked())
    _train(module, [LoadedBatch(_batch(), [])], tmp_path)
    assert module.target is None and objective.encoded_source is None


def test_targets_follow_by_the_momentum(tmp_path):
    backbone = _backbone()
    module = _module(_both(backbone), momentum=Momentum(0.75, 0.75), backbone=backbone)
    pairs = [(backbone, module.target.network), *module.objective.ema_pairs()]
    assert len(pairs) == 2
    before = [[p.detach().clone() for p in target.parameters()] for _, target in pairs]
    _train(module, [LoadedBatch(_batch(), [])], tmp_path)
    moved = False
    for old, (online, target) in zip(before, pairs, strict=True):
        for was, now, current in zip(old, target.parameters(), online.parameters(), strict=True):
            torch.testing.assert_close(now, 0.75 * was + 0.25 * current.detach())
            moved |= not torch.equal(was, now)
    assert moved


def test_a_loss_that_is_not_finite_names_term_and_samples_and_keeps_the_batch(tmp_path):
    module, batch = _module(ReadsViewA(float("nan")), flow=NeverAsked()), _batch()
    before = {name: value.clone() for name, value in module.backbone.named_parameters()}
    with pytest.raises(NonFiniteError, match=r"size = nan.*log/0->log/0\+, log/1->log/1\+") as caught:
        _train(module, [LoadedBatch(batch, [])], tmp_path)
    saved = torch.load(str(caught.value).rpartition("saved to ")[2], weights_only=True)
    assert torch.equal(saved["batch"]["target"]["xyz"], batch.target.xyz)
    assert saved["batch"]["keys"] == list(batch.keys)
    assert all(torch.equal(value, before[name]) for name, value in module.backbone.named_parameters())


class _SteepAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path):
    class FiniteLoss(ReadsViewA):
        def forward(self, pair):
            terms = super().forward(pair)
            return LossTerms({"size": _SteepAtOnce.apply(terms.terms["size"])}, terms.weights)

    module = _module(FiniteLoss(), flow=NeverAsked())
    with pytest.raises(NonFiniteError, match=r"gradient_norm = (nan|inf).*log/0"):
        _train(module, [LoadedBatch(_batch(), [])], tmp_path)
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_a_batch_without_a_readable_sample_changes_nothing(tmp_path):
    module = _module(ReadsViewA(), flow=NeverAsked())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    faults = [Fault("log/7", "truncated")]
    budget = FaultBudget()
    run = _train(module, [LoadedBatch(None, faults)], tmp_path, callbacks=[lambda run: FaultWatch(run, budget)])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert (budget.seen, budget.faulty) == (1, 1)
    assert (run.path / "faulty_samples.txt").read_text() == "log/7: truncated\n"


def test_too_many_faulty_samples_stop_the_run(tmp_path):
    batches = [LoadedBatch(_batch(), [Fault(f"log/{i}", "empty")]) for i in range(5)]
    with pytest.raises(TooManyFaultsError, match="log/0: empty"):
        _train(_module(ReadsViewA()), batches, tmp_path, 5, [lambda run: FaultWatch(run, FaultBudget(0.1, 2))])


def test_a_pair_without_points_is_no_error(tmp_path):
    batch = _batch()
    far = replace(batch, target=replace(batch.target, xyz=batch.target.xyz + 1000.0))
    backbone = _backbone()
    _train(_module(_both(backbone), backbone=backbone), [LoadedBatch(far, [])], tmp_path)
    assert all(parameter.isfinite().all() for parameter in backbone.parameters())


def test_another_sample_order_in_the_batch_gives_the_same_loss():
    """Draws are keyed by sample: the loss of a batch does not depend on who sits where."""
    backbone = _backbone().eval()
    module = _module(_both(backbone), backbone=backbone).eval()
    batch = _batch(2)
    single = [batch.source.split(), batch.target.split()]
    swapped = SweepPairBatch(
        type(batch.source).collate(single[0][::-1]), type(batch.target).collate(single[1][::-1]),
        batch.target_T_source[[1, 0]], batch.gap.flip(0), batch.seeds.flip(0), batch.keys[::-1],
    )  # fmt: skip
    losses = [module.objective(module.encode(one)).total() for one in (batch, swapped)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
