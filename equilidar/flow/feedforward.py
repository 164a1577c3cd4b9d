"""Flow by a network that was distilled from another estimator's: one pass, quick enough for the pretraining step."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equilidar.atomic_file import atomic_file
from equilidar.flow.flow_network import FlowAnswer, FlowNetwork, at_points
from equilidar.flow.flow_pillars import FlowNetworkShape, PillarPair, pillars_of
from equilidar.flow.object_refinement import ObjectRefinement
from equilidar.structures import FlowField, PointCloudBatch, SweepPairBatch

_FORMAT = "equilidar-flow-network-2"
_REFINEMENT = ObjectRefinement()


@dataclass(frozen=True)
class FlowNetworkOrigin:
    """Where a flow network's weights are from.

    Attributes:
        teacher: name of the estimator that it imitates.
        from_labels: whether annotations went into the teacher.
        provenance: plain values: the teacher's settings, the data and its hash, steps, seed.
    """

    teacher: str
    from_labels: bool
    provenance: dict[str, Any]


def save_flow_network(path: str | os.PathLike[str], network: FlowNetwork, origin: FlowNetworkOrigin) -> None:
    """Write weights, shape and origin into one safetensors file, which appears whole or not at all.

    Raises:
        ValueError: a weight is not finite.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"flow network: {broken[0]} is not finite, so it is not saved; train it with a lower lr")
    about = {
        "shape": network.shape.as_dict(),
        "teacher": origin.teacher,
        "from_labels": origin.from_labels,
        "provenance": origin.provenance,
        "content_hash": _content_hash(tensors),
    }
    content = safetensors.torch.save(tensors, {"format": _FORMAT, "about": json.dumps(about, sort_keys=True)})
    with atomic_file(Path(path)) as file:
        file.write(content)


class FeedforwardFlow:
    """The ego motion and, where the network says that something moves, its motion over ground.

    Refinement makes objects of what moves, and fits the rigid motion of each to the points of both sweeps.

    What lies on the ground, or outside of the square that the network sees, flows with the ego motion; outside it is
    not valid. Confidence is the network's probability of what it decided.

    Attributes:
        allow_labels: the user's leave, where the teacher was from labels.
        from_labels: whether it was.
        settings: what decides the output: the weights' hash, the threshold and the refinement.
        origin: what the file says of itself.
    """

    name = "feedforward"

    def __init__(
        self, path: str | os.PathLike[str], threshold: float = 0.5, allow_labels: bool = False,
        refine: ObjectRefinement | None = _REFINEMENT,
    ) -> None:  # fmt: skip
        """Load weights.

        Args:
            path: file that `tools/distill.py` wrote.
            threshold: probability above which a pillar moves.
            allow_labels: the user's leave.
            refine: fits the motions of moving objects to the points; None leaves each square the network's.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no flow network, is damaged, or `threshold` is no probability.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"flow.threshold must lie between 0 and 1, got {threshold}")
        self.network, about = _load(Path(path))
        self.threshold, self.allow_labels, self.refine = threshold, allow_labels, refine
        self.from_labels: bool = about["from_labels"]
        self.origin = FlowNetworkOrigin(about["teacher"], about["from_labels"], about["provenance"])
        self.settings = {"weights": about["content_hash"], "threshold": threshold, "refine": refine and asdict(refine)}

    @torch.no_grad()
    def __call__(self, batch: SweepPairBatch) -> FlowField:
        """Return the flow, on the batch's device."""
        source = batch.source
        self.network.to(source.xyz.device)
        moved = batch.target_T_source.apply(source.xyz, source.offsets)
        there = PointCloudBatch(moved, source.features, source.offsets, source.channels)
        pair = pillars_of(there, batch.target, self.network.shape)
        # Float32: a mixed-precision step around this must not coarsen centimetres.
        with torch.autocast(source.xyz.device.type, enabled=False):
            answer = self.network(pair)
            own, moving = self._motion(there, batch, pair, answer)
        chance = at_points(answer.moves.sigmoid(), answer.rows)
        sure = torch.where(moving, chance, 1 - chance)
        inside = (moved[:, :2].abs() < self.network.shape.extent).all(1)
        confidence = torch.where(answer.rows >= 0, sure, inside.float())
        return FlowField(moved - source.xyz + own, inside, confidence * inside)

    def _motion(
        self, source: PointCloudBatch, batch: SweepPairBatch, pair: PillarPair, answer: FlowAnswer
    ) -> tuple[Float[Tensor, "N 3"], Bool[Tensor, " N"]]:
        """Return motion over ground of each point, and whether it moves."""
        if self.refine is not None:
            return self.refine(source, batch.target, pair, answer, self.threshold, batch.gap)
        moves = answer.moves.sigmoid() > self.threshold
        own = at_points(torch.where(moves[:, None], answer.motion, 0.0), answer.rows)
        return own, at_points(moves.float(), answer.rows) > 0


def _load(path: Path) -> tuple[FlowNetwork, dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"flow.path: no flow network {path}; python tools/distill.py writes one")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is {metadata.get('format')}, not {_FORMAT}")
        about = json.loads(metadata["about"])
        if _content_hash(tensors) != about["content_hash"]:
            raise ValueError("its weights are not those that were saved")
        network = FlowNetwork(FlowNetworkShape(**about["shape"]))
        network.load_state_dict(tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"flow.path: {path} is no flow network ({' '.join(str(error).split())})") from None
    return network.eval().requires_grad_(False), about


def _content_hash(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]
