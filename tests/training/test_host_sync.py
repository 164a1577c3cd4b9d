"""A training step asks the device for nothing but what `allowed_sync` names."""

from contextlib import ExitStack

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch.utils.data import DataLoader

from equilidar.augment.group import SpatialGroup
from equilidar.augment.labelled import LabelledAugmentation
from equilidar.augment.pipeline import ViewPipeline
from equilidar.backbones import VoxelBackBone8x, VoxelResBackBone8x
from equilidar.data.loading import LoadedBatch
from equilidar.detection.anchors import AnchorClass
from equilidar.detection.centerpoint import build_centerpoint
from equilidar.detection.detector import Detector
from equilidar.detection.neck import BEVNeck
from equilidar.detection.second import build_second
from equilidar.flow import NearestFlow
from equilidar.objectives import CompositeObjective, FlowEquivariance, PointContrast, RotationClassification
from equilidar.structures import (
    Boxes3D,
    GridSpec,
    LabelledBatch,
    LabelledSweep,
    SensorContract,
    Sweep,
    SweepPair,
    SweepPairBatch,
)
from equilidar.structures.host_sync import allowed_sync, constants, rows_where
from equilidar.sync_watch import HostSync, watch_syncs
from equilidar.training import step_record
from equilidar.training.ema import Momentum
from equilidar.training.finetune import FinetuneModule
from equilidar.training.launch import make_trainer
from equilidar.training.pretrain import PretrainModule
from equilidar.training.run_directory import open_run
from equilidar.training.schedules import constant
from equilidar.training.step_record import NonFiniteError
from tests.training.tiny_finetuning import NoScorer

GRID = GridSpec.from_range([0.0, -6.4, -3.0, 12.8, 6.4, 1.0], [0.4, 0.4, 0.1])
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
STEPS = 3


def sweep(name: str) -> Sweep:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    xyz = torch.rand(400, 3, generator=generator) * torch.tensor([12.0, 12.0, 3.0]) + torch.tensor([0.5, -6.0, -2.5])
    contract = SensorContract(("intensity",), (1.0,), "sensor")
    return Sweep(xyz, torch.rand(400, 1, generator=generator), contract, name, 0.0)


def optimizer(parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


def pretraining() -> tuple[pl.LightningModule, list]:
    torch.manual_seed(0)
    backbone = VoxelBackBone8x(GRID, 4, width=0.25)
    info = backbone.feature_info
    objective = CompositeObjective(
        {
            "contrast": PointContrast(features=info, projector=[8], max_pairs=32),
            "rotation": RotationClassification(features=info, hidden=[8]),
            "flow": FlowEquivariance(features=info, projector=[8, 8], predictor=[8, 8]),
        }
    )
    module = PretrainModule(
        backbone, objective, ViewPipeline(GRID, SpatialGroup()), NearestFlow(), optimizer=optimizer, schedule=constant,
        momentum=Momentum(0.9, 0.9), monitor_every=2,
    )  # fmt: skip
    eye = torch.eye(4, dtype=torch.float64)
    batches = [
        SweepPairBatch.collate([SweepPair(sweep(f"{i}/{j}"), sweep(f"{i}/{j}+"), eye) for j in range(2)])
        for i in range(STEPS)
    ]
    return module, [LoadedBatch(batch, []) for batch in batches]


def narrow_neck(in_channels: int, in_shape: tuple[int, int]) -> BEVNeck:
    return BEVNeck(in_channels, in_shape, layers=[1], strides=[1], channels=[8], up_strides=[1], up_channels=[8])


def finetuning() -> tuple[pl.LightningModule, list]:
    torch.manual_seed(0)
    detector = build_second(
        VoxelBackBone8x(GRID, 4, width=0.25),
        ["car", "pedestrian"],
        neck=narrow_neck,
        anchors=[
            AnchorClass("car", (4.0, 2.0, 1.5), -2.0, 0.6, 0.45),
            AnchorClass("pedestrian", (0.8, 0.8, 1.7), -2.0, 0.5, 0.35),
        ],
    )
    return finetuning_of(detector)


def finetuning_centers() -> tuple[pl.LightningModule, list]:
    torch.manual_seed(0)
    backbone = VoxelResBackBone8x(GRID, 4, width=0.25)
    tasks = [["car"], ["pedestrian"]]
    return finetuning_of(
        build_centerpoint(backbone, ["car", "pedestrian"], neck=narrow_neck, tasks=tasks, velocity=True)
    )


def finetuning_of(detector: Detector) -> tuple[pl.LightningModule, list]:
    module = FinetuneModule(detector, LabelledAugmentation(GRID), NoScorer(), optimizer=optimizer, schedule=constant)  # pyright: ignore[reportArgumentType]
    center, size = torch.tensor([[5.0, 0.0, -1.0], [8.0, 2.0, -1.0]]), torch.tensor([[4.0, 2.0, 1.5], [0.8, 0.8, 1.7]])
    boxes = Boxes3D.make(center, size, torch.tensor([0.3, 0.0]), label=torch.tensor([0, 1]))
    sweeps = [[LabelledSweep(sweep(f"{i}/{j}"), boxes) for j in range(2)] for i in range(STEPS)]
    return module, [LoadedBatch(LabelledBatch.collate(items), []) for items in sweeps]


class Within(pl.Callback):
    """Enters a context for each step but the first, from its start to where the next batch is fetched."""

    def __init__(self, make) -> None:
        self.make, self.entered, self.stack = make, [], ExitStack()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx > 0:
            self.entered.append(self.stack.enter_context(self.make()))

    def on_train_batch_end(self, *_) -> None:
        self.stack.close()


def train(case, callback: pl.Callback, tmp_path, accelerator: str) -> None:
    module, batches = case()
    with open_run("pretrain", {"seed": 0}, [], force=False, runs=str(tmp_path), run=None) as run:
        trainer = make_trainer(
            run, callbacks=[callback], accelerator=accelerator, max_steps=STEPS, enable_progress_bar=False,
            limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, DataLoader(batches, batch_size=None))
    assert {"loss", "gradient_norm", "lr"} <= trainer.callback_metrics.keys()


@pytest.mark.parametrize("case", [pretraining, finetuning, finetuning_centers])
def test_a_step_has_no_hidden_host_sync(case, tmp_path, monkeypatch):
    # As on a GPU, where values are still on their way when a step ends.
    monkeypatch.setattr(step_record._Numbers, "arrived", False)
    within = Within(lambda: watch_syncs(allowed=True))
    train(case, within, tmp_path, "cpu")
    assert len(within.entered) == STEPS - 1
    for found in within.entered:
        assert [str(sync) for sync in found if sync.reason is None] == []
        assert {"number of occupied voxels", "size of the rulebook"} <= {sync.reason for sync in found}


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("case", [pretraining, finetuning, finetuning_centers])
def test_a_step_on_cuda_has_no_hidden_host_sync(case, tmp_path):
    class Strict:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *_):
            torch.cuda.set_sync_debug_mode("default")

    within = Within(Strict)
    train(case, within, tmp_path, "gpu")  # a wait that is not allowed raises
    assert len(within.entered) == STEPS - 1


def calls(found: list[HostSync]) -> list[str]:
    return [sync.call for sync in found]


def test_the_watcher_sees_what_waits_and_not_what_does_not():
    values = torch.arange(4.0, requires_grad=True)
    mask = values.detach() > 1
    with watch_syncs() as found:
        _ = values[mask].sum()
        _ = values.detach().tolist()
        _ = torch.tensor([1.0], device=values.device)
        _ = bool(mask.any())
        _ = values[[0, 1]]
    assert calls(found) == ["aten::index", "tolist", "tensor", "aten::_local_scalar_dense", "__getitem__"]
    assert all("test_host_sync.py" in sync.place for sync in found), list(map(str, found))
    with watch_syncs() as found:
        _ = torch.where(mask, values, 0.0).sum() + constants([1.0, 2.0], device=values.device).sum()
        changed = values.detach().clone()
        changed[mask] = 0.0
        _ = values[mask.nonzero_static(size=2)[:, 0]].sum().backward()
        with allowed_sync("a test"):
            _ = values.detach()[mask]
    assert found == []
    with watch_syncs(allowed=True) as found:
        assert rows_where(mask, "how many").tolist() == [2, 3]
    assert [(sync.call, sync.reason) for sync in found] == [("aten::nonzero", "how many"), ("tolist", None)]


def test_a_mask_that_is_indexed_by_waits_again_in_the_backward_pass():
    values = torch.arange(4.0, requires_grad=True)
    with watch_syncs() as found:
        values[values.detach() > 1].sum().backward()
    assert len(found) == 2


@pytest.mark.parametrize("late", [False, True], ids=["at once", "one step late"])
def test_a_step_that_is_not_finite_stops_the_run_whenever_it_is_read(late, tmp_path, monkeypatch):
    if late:
        monkeypatch.setattr(step_record._Numbers, "arrived", False)
    module, batches = pretraining()
    batches[1].batch.target.features.fill_(torch.nan)
    started = []

    class Counts(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
            started.append(batch_idx)

    with pytest.raises(
        NonFiniteError, match=r"not finite at step 1: .*gradient_norm = nan; samples: 1/0->1/0\+"
    ) as caught:
        train(lambda: (module, batches), Counts(), tmp_path, "cpu")
    assert started == ([0, 1, 2] if late else [0, 1])
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    saved = torch.load(str(caught.value).rpartition("saved to ")[2], weights_only=True)
    assert saved["step"] == 1 and torch.isnan(saved["batch"]["target"]["features"]).all()


def test_no_checkpoint_is_written_over_a_step_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(step_record._Numbers, "arrived", False)
    module, batches = pretraining()
    batches[1].batch.target.features.fill_(torch.nan)

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            trainer.save_checkpoint(tmp_path / f"{batch_idx}.ckpt")

    with pytest.raises(NonFiniteError, match="not finite at step 1"):
        train(lambda: (module, batches), Saves(), tmp_path, "cpu")
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["0.ckpt"]


def test_values_that_are_read_late_are_logged_under_their_own_step(tmp_path, monkeypatch):
    logged = []
    for arrived in (True, False):
        rows = []

        class Rows(Logger):
            name = version = "rows"

            def log_metrics(self, metrics, step=None):
                rows.append({"step": step, **metrics})  # noqa: B023

            def log_hyperparams(self, params, *args, **kwargs): ...

        class Adds(pl.Callback):
            def setup(self, trainer, pl_module, stage) -> None:
                trainer.loggers = [Rows()]

        monkeypatch.setattr(step_record._Numbers, "arrived", arrived)
        train(pretraining, Adds(), tmp_path / str(arrived), "cpu")
        logged.append([{name: value for name, value in row.items() if name != "pairs_per_second"} for row in rows])
    assert [row["step"] for row in logged[0]] == list(range(STEPS))
    assert logged[0] == logged[1]
