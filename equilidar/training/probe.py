"""How much of the objects a frozen backbone's bird's-eye-view features hold: linear and nearest-neighbour probes.

A probe predicts for each occupied cell the class of the labelled object on it, or background. Beside it stands the
same network with random weights: what a probe reads out of the points alone.
"""

import logging
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from equilidar.backbones.feature_info import Backbone
from equilidar.data.protocols import LabelledDataset, PairDataset, require_labelled
from equilidar.evaluation.text_table import text_table
from equilidar.structures import SensorContract
from equilidar.training.probe_cells import ProbeCells, collect_cells, split_by_sequence

_LOG = logging.getLogger(__name__)
_CHUNK = 4096


def check_points(contract: SensorContract, dataset: LabelledDataset | PairDataset) -> None:
    """Raise ValueError unless a dataset is labelled and feeds a backbone the points that it was trained on."""
    dataset = require_labelled(dataset, "evaluation")
    if dataset.contract != contract:
        raise ValueError(
            f"checkpoint: the backbone was trained on points of {contract}, the dataset gives {dataset.contract}: "
            "give the same channels, scales and frame"
        )


@runtime_checkable
class Probe(Protocol):
    """Learns from labelled cells, predicts the labels of others."""

    def __call__(
        self, train: ProbeCells, num_classes: int, queries: Float[Tensor, "K C"], generator: torch.Generator
    ) -> Int64[Tensor, " K"]:
        """Return a label for each query."""
        ...


@dataclass(frozen=True)
class LinearProbe:
    """Multinomial logistic regression on standardised features, every class with the same weight.

    Attributes:
        per_class: cells of each class that it learns from, at most.
        weight_decay: of the weights' squares.
        steps: of L-BFGS.
    """

    per_class: int = 5000
    weight_decay: float = 1e-4
    steps: int = 100

    def __post_init__(self) -> None:
        if self.per_class < 1 or self.steps < 1 or self.weight_decay < 0:
            raise ValueError(f"probe: per_class and steps must be at least 1, weight_decay 0, got {self}")

    def __call__(
        self, train: ProbeCells, num_classes: int, queries: Float[Tensor, "K C"], generator: torch.Generator
    ) -> Int64[Tensor, " K"]:
        """Return the likeliest label of each query."""
        chosen = train.balanced(self.per_class, generator)
        mean, deviation = chosen.features.mean(0), chosen.features.std(0).clamp(min=1e-6)
        inputs, labels = (chosen.features - mean) / deviation, chosen.labels
        counts = torch.bincount(labels, minlength=num_classes)
        weight = torch.where(counts > 0, len(labels) / counts.clamp(min=1), 0.0)
        layer = nn.Linear(inputs.shape[1], num_classes)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=self.steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(layer(inputs), labels, weight) + self.weight_decay * layer.weight.square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        with torch.no_grad():
            # A class that was never shown cannot be predicted.
            logits = layer((queries - mean) / deviation).masked_fill(counts == 0, -torch.inf)
        return logits.argmax(1)


@dataclass(frozen=True)
class NeighbourProbe:
    """Vote of the nearest cells by cosine, weighted by exp(cosine / temperature) (Wu et al., CVPR 2018).

    Attributes:
        per_class: cells of each class that vote, at most.
        num_neighbours: that are asked.
        temperature: of the weights.
    """

    per_class: int = 5000
    num_neighbours: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.per_class < 1 or self.num_neighbours < 1 or not self.temperature > 0:
            raise ValueError(
                f"probe: per_class and num_neighbours must be at least 1 and temperature above 0, got {self}"
            )

    def __call__(
        self, train: ProbeCells, num_classes: int, queries: Float[Tensor, "K C"], generator: torch.Generator
    ) -> Int64[Tensor, " K"]:
        """Return the label that the neighbours of each query vote for."""
        chosen = train.balanced(self.per_class, generator)
        mean, deviation = chosen.features.mean(0), chosen.features.std(0).clamp(min=1e-6)
        bank = F.normalize((chosen.features - mean) / deviation)
        # Rare classes have fewer voters.
        counts = torch.bincount(chosen.labels, minlength=num_classes).clamp(min=1)
        share = 1 / counts[chosen.labels].float()
        found: list[Tensor] = []
        for part in queries.split(_CHUNK):
            cosine = F.normalize((part - mean) / deviation) @ bank.T
            best, rows = cosine.topk(min(self.num_neighbours, len(bank)), 1)
            votes = ((best - 1) / self.temperature).exp() * share[rows]
            found.append(torch.zeros(len(part), num_classes).scatter_add_(1, chosen.labels[rows], votes).argmax(1))
        return torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)


@dataclass(frozen=True)
class ProbeFigures:
    """How well cells were classified.

    Attributes:
        recall: by class, background first; of classes that occur in the cells that judge.
        iou: intersection over union by class.
        support: cells of each class that judge.
    """

    recall: dict[str, float]
    iou: dict[str, float]
    support: dict[str, int]

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the recalls."""
        return sum(self.recall.values()) / len(self.recall)

    @property
    def mean_iou(self) -> float:
        """Mean of the intersections over unions."""
        return sum(self.iou.values()) / len(self.iou)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        means = {"balanced_accuracy": self.balanced_accuracy, "mean_iou": self.mean_iou}
        return {**means, "recall": self.recall, "iou": self.iou, "support": self.support}


def judge(predicted: Int64[Tensor, " K"], labels: Int64[Tensor, " K"], names: tuple[str, ...]) -> ProbeFigures:
    """Compare predicted labels with the true ones.

    Args:
        predicted: indices into `names`.
        labels: the true ones.
        names: of the labels, background first.
    """
    table = torch.bincount(labels * len(names) + predicted, minlength=len(names) ** 2).view(len(names), -1)
    support, hits = table.sum(1), table.diagonal()
    union = support + table.sum(0) - hits
    seen = [index for index in range(len(names)) if support[index] > 0]
    return ProbeFigures(
        {names[i]: float(hits[i] / support[i]) for i in seen},
        {names[i]: float(hits[i] / union[i]) for i in seen},
        {names[i]: int(support[i]) for i in seen},
    )


def probe_backbone(
    backbone: Backbone,
    dataset: LabelledDataset,
    probe: Probe,
    *,
    held_out: float = 0.25,
    seed: int = 0,
    **loading: Any,
) -> dict[str, ProbeFigures]:
    """Return the figures of a backbone ("checkpoint") and of the same network with random weights ("scratch").

    Args:
        backbone: with the weights that are asked about.
        dataset: labelled sweeps of several sequences.
        probe: `LinearProbe` or `NeighbourProbe`.
        held_out: fraction of the sequences that judge.
        seed: of the split, the draws and the random weights.
        loading: batch_size, num_workers and device of `collect_cells`.

    Raises:
        ValueError: there is one sequence only, or no object to learn from or to be judged by.
    """
    training, judging = split_by_sequence(dataset.keys, held_out, seed)
    names = ("background", *dataset.class_names)
    figures: dict[str, ProbeFigures] = {}
    for name, network in (("checkpoint", backbone), ("scratch", fresh_copy(backbone, seed))):
        cells = collect_cells(network, dataset, **loading)
        for fault in cells.faults if name == "checkpoint" else ():
            _LOG.warning("left out: %s: %s", fault.key, fault.reason)
        train, test = cells.of_sweeps(training), cells.of_sweeps(judging)
        for part, of_part in (("to learn from", train), ("to be judged by", test)):
            if not bool((of_part.labels > 0).any()):
                raise ValueError(f"dataset: no labelled object stands on an occupied cell {part}: give more sweeps")
        generator = torch.Generator().manual_seed(seed)
        figures[name] = judge(probe(train, len(names), test.features, generator), test.labels, names)
    return figures


def fresh_copy(backbone: Backbone, seed: int) -> Backbone:
    """Return a network of the same class and arguments with random weights; no global random state moves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cast(Any, type(backbone))(backbone.grid, backbone.in_channels, **backbone.arguments)


def format_probe(figures: dict[str, ProbeFigures]) -> str:
    """Return a line for each start: the means, then intersection over union by class; in percent."""
    names = list(next(iter(figures.values())).iou)
    rows = [
        [start, *(100 * v for v in (own.balanced_accuracy, own.mean_iou, *(own.iou[name] for name in names)))]
        for start, own in figures.items()
    ]
    return text_table(["backbone", "balanced accuracy", "mIoU", *(f"IoU {name}" for name in names)], rows, digits=2)
