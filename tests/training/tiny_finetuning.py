"""A detector small enough to be trained in a test, and batches for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytorch_lightning as pl
import torch

from equilidar.augment.labelled import LabelledAugmentation
from equilidar.backbones import VoxelBackBone8x
from equilidar.data.loading import LoadedBatch
from equilidar.detection.anchors import AnchorClass
from equilidar.detection.detector import Detector
from equilidar.detection.neck import BEVNeck
from equilidar.detection.second import build_second
from equilidar.structures import Boxes3D, GridSpec, LabelledBatch, LabelledSweep, SensorContract, Sweep
from equilidar.training.finetune import FinetuneModule
from equilidar.training.launch import make_trainer
from equilidar.training.run_directory import RunDirectory
from equilidar.training.schedules import constant

GRID = GridSpec.from_range([0.0, -6.4, -3.0, 12.8, 6.4, 1.0], [0.4, 0.4, 0.1])
CLASSES = ("car", "pedestrian")


def sweep(name: str) -> Sweep:
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    xyz = torch.rand(400, 3, generator=generator) * torch.tensor([12.0, 12.0, 3.0]) + torch.tensor([0.5, -6.0, -2.5])
    contract = SensorContract(("intensity",), (1.0,), "sensor")
    return Sweep(xyz, torch.rand(400, 1, generator=generator), contract, name, 0.0)


def labelled(name: str) -> LabelledSweep:
    center, size = torch.tensor([[5.0, 0.0, -1.0], [8.0, 2.0, -1.0]]), torch.tensor([[4.0, 2.0, 1.5], [0.8, 0.8, 1.7]])
    return LabelledSweep(sweep(name), Boxes3D.make(center, size, torch.tensor([0.3, 0.0]), label=torch.tensor([0, 1])))


def batches(number: int, size: int = 2) -> list[LoadedBatch[LabelledBatch]]:
    return [LoadedBatch(LabelledBatch.collate([labelled(f"{i}/{j}") for j in range(size)]), []) for i in range(number)]


def tiny_detector(seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return build_second(
        VoxelBackBone8x(GRID, 4, width=0.25),
        CLASSES,
        neck=lambda in_channels, in_shape: BEVNeck(
            in_channels, in_shape, layers=[1], strides=[1], channels=[8], up_strides=[1], up_channels=[8]
        ),
        anchors=[
            AnchorClass("car", (4.0, 2.0, 1.5), -2.0, 0.6, 0.45),
            AnchorClass("pedestrian", (0.8, 0.8, 1.7), -2.0, 0.5, 0.35),
        ],
    )


class NoScorer:
    """Stands where nothing is validated."""

    has_cliff = False

    def __call__(self, detections: Any) -> Any:
        raise AssertionError("nothing is validated here")

    def write(self, folder: Path, detections: Any) -> None:
        raise AssertionError("nothing is written here")


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-2)


def tiny_module(schedule: Callable[..., Any] = constant, detector: Detector | None = None, **more: Any) -> Any:
    return FinetuneModule(
        detector or tiny_detector(),
        LabelledAugmentation(GRID),
        NoScorer(),
        optimizer=optimizer,
        schedule=schedule,
        **more,
    )


def train(
    module: pl.LightningModule,
    loaded: list[LoadedBatch[LabelledBatch]],
    folder: Path,
    *callbacks: pl.Callback,
    checkpoint: Path | None = None,
    **options: Any,
) -> pl.Trainer:
    run = Mock(spec=RunDirectory, path=folder)
    trainer = make_trainer(
        run, (), callbacks, **{"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, **options}
    )
    loader = torch.utils.data.DataLoader(loaded, batch_size=None, shuffle=False)  # pyright: ignore[reportArgumentType]
    trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return trainer
