"""One detector on one frame, from raw points: ours and OpenPCDet's way in turns, by stage.

The dense network (neck and head) is the same in both; the peer gets its map as OpenPCDet has it, channel after channel.
To tell the stages of a backward pass apart, the graph is cut at the map and at the raw outputs.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.detectors.anchor_peer import AnchorPeer
from benchmarks.detectors.center_peer import CenterPeer
from benchmarks.detectors.clock import Clock, medians
from benchmarks.frames import Frame
from benchmarks.memory import peak_bytes
from benchmarks.spconv_backbone import better_threads, import_spconv, spconv_network, threads
from equilidar.ops.voxelize import voxelize_mean
from equilidar.structures import BEVMap, Boxes3D, PointCloudBatch

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# None of these holds the name of another row, by which rows are picked.
VOXELIZATION, SPARSE, DENSE = "voxelization", "sparse", "dense"
DECODING, NMS, TARGETS = "decoding", "suppression", "targets_loss"


@dataclass(frozen=True)
class Setting:
    """A detector and what it is measured on.

    Attributes:
        name: of its rows.
        grid, backbone, detector: names of configs.
        class_names: of the dataset.
        frame: makes the sweep.
        num_features: columns beside x, y, z; those that the frame lacks are zero.
        num_boxes: objects of the sweep.
        residual: whether the peer's backbone has residual blocks.
    """

    name: str
    grid: str
    backbone: str
    detector: str
    class_names: tuple[str, ...]
    frame: Callable[[], Frame]
    num_features: int
    num_boxes: int
    residual: bool

    @property
    def available(self) -> bool:
        """Whether its configs are there."""
        parts = (("grid", self.grid), ("backbone", self.backbone), ("detector", self.detector))
        return all((CONFIGS / group / f"{name}.yaml").is_file() for group, name in parts)


class EndToEnd:
    """Measures when first asked for figures.

    Attributes:
        note: what is measured.
    """

    def __init__(self, setting: Setting, quick: bool) -> None:
        # A small grid makes the dense network small.
        self._setting, self._quick = dataclasses.replace(setting, grid="sim_tiny") if quick else setting, quick
        self._rounds = 1 if quick else 5

    @cached_property
    def note(self) -> str:
        frame, setting = self._setting.frame(), self._setting
        return f"{frame.name}, {len(self._points.xyz):,} points, grid {setting.grid}, {setting.num_boxes} boxes"

    @cached_property
    def _points(self) -> PointCloudBatch:
        frame = self._setting.frame()
        step = 10 if self._quick else 1
        xyz, intensity = frame.xyz[::step], frame.intensity[::step]
        rest = intensity.new_zeros(len(xyz), self._setting.num_features - 1)
        channels = tuple(f"channel{i}" for i in range(self._setting.num_features))
        return PointCloudBatch(xyz, torch.cat([intensity, rest], 1), torch.tensor([0, len(xyz)]), channels)

    @cached_property
    def _model(self) -> Any:
        from hydra import compose, initialize_config_dir
        from hydra.utils import instantiate

        setting = self._setting
        groups = [f"{group}={getattr(setting, group)}" for group in ("grid", "backbone", "detector")]
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("finetune", groups)
        torch.manual_seed(0)
        parts = {name: instantiate(cfg[name], _convert_="all") for name in ("backbone", "detector")}
        backbone = parts["backbone"](in_channels=3 + setting.num_features)
        return parts["detector"](backbone=backbone, class_names=setting.class_names)

    @cached_property
    def _boxes(self) -> Boxes3D:
        """Boxes of all classes of the detector, around points of the frame."""
        generator = torch.Generator().manual_seed(0)
        num, classes = self._setting.num_boxes, self._model.classes
        grid = self._model.backbone.grid
        inside = self._points.xyz[grid.contains(self._points.xyz)]
        center = inside[torch.randint(0, len(inside), (num,), generator=generator)].clone()
        label = torch.arange(num) % len(classes)
        large = torch.tensor([4.2, 1.8, 1.6])
        size = torch.where((label == 0)[:, None], large, large * 0.4)
        labels = torch.tensor([self._setting.class_names.index(name) for name in classes])[label]
        return Boxes3D.make(center, size, 6 * torch.rand(num, generator=generator), label=labels)

    @cached_property
    def _peer(self) -> Any:
        anchors = hasattr(self._model.head, "anchors")
        return (AnchorPeer if anchors else CenterPeer)(self._model)

    @cached_property
    def _outputs(self) -> Any:
        """Raw outputs as of a trained detector, which both sides decode and compare with the boxes."""
        self._model.eval()
        with torch.no_grad():
            return self._peer.plausible(self._model(self._points), self._known)

    @cached_property
    def _known(self) -> Boxes3D:
        return self._model.known(self._boxes)

    @cached_property
    def _threads(self) -> int:
        """Threads with which our sparse backbone is faster."""
        voxels = voxelize_mean(self._points, self._model.backbone.grid)

        def run() -> None:
            voxels.rulebooks = {}
            with torch.no_grad():
                self._model.backbone(voxels)

        return better_threads(run)

    @cached_property
    def _theirs(self) -> "_SpconvSide | None":
        if import_spconv() is None:
            return None
        return _SpconvSide(self._model.backbone.grid, self._points, self._setting.residual)

    # Both ways through the stages.

    def _infer(self, clock: Clock, peer: bool) -> None:
        self._model.eval()
        with torch.no_grad():
            bev = self._encode(clock, peer)
            with clock(DENSE):
                self._model.head(self._model.neck(bev))
            if peer:
                with clock(DECODING):
                    candidates = self._peer.candidates(self._outputs)
                with clock(NMS):
                    self._peer.suppress(candidates)
            else:
                selection = sys.modules[type(self._model.selection).__module__]
                with clock.inside(selection, "nms_batched", NMS, DECODING), clock(DECODING):
                    self._model.decode(self._outputs)

    def _train(self, clock: Clock, peer: bool) -> None:
        self._model.train()
        bev = self._encode(clock, peer)
        cut = BEVMap(bev.features.detach().requires_grad_(), bev.grid, bev.stride)
        with clock(DENSE):
            outputs = self._model.head(self._model.neck(cut))
        leaves = _leaves(self._outputs)
        with clock(TARGETS):
            loss = self._peer.loss(leaves, self._known) if peer else self._model.loss(leaves, self._boxes).total()
            loss.backward()
        with clock(DENSE):
            pairs = [(made, leaf.grad) for made, leaf in zip(_floats(outputs), _floats(leaves), strict=True)]
            made, grads = zip(
                *((one, grad) for one, grad in pairs if grad is not None and one.requires_grad), strict=True
            )
            torch.autograd.backward(made, grads)
        with clock(SPARSE), threads(self._sparse_threads(peer)):
            bev.features.backward(cut.features.grad)
        self._model.zero_grad(set_to_none=True)

    def _encode(self, clock: Clock, peer: bool) -> BEVMap:
        grid, info = self._model.backbone.grid, self._model.backbone.feature_info
        if peer:
            assert self._theirs is not None
            with clock(VOXELIZATION):
                voxels = self._theirs.voxelize()
            with clock(SPARSE), threads(self._theirs.threads):
                return BEVMap(self._theirs.encode(*voxels), grid, info.bev_stride)
        with clock(VOXELIZATION):
            voxels = voxelize_mean(self._points, grid)
        with clock(SPARSE), threads(self._threads):
            return self._model.backbone(voxels).bev_map()

    def _sparse_threads(self, peer: bool) -> int:
        return self._theirs.threads if peer and self._theirs is not None else self._threads

    @cached_property
    def _medians(self) -> dict[tuple[str, bool], dict[str, float]]:
        """Stages by (what, whether it is the peer's), ours and the peer's in turns."""
        result = {}
        for what, run in (("inference", self._infer), ("training", self._train)):
            sides = [False, True] if self._theirs is not None else [False]
            clocks: dict[bool, list[Clock]] = {side: [] for side in sides}
            for number in range(self._rounds + 1):
                for side in sides:
                    clock = Clock()
                    run(clock, side)
                    if number > 0:  # a first run is not counted
                        clocks[side].append(clock)
            result |= {(what, side): medians(clocks[side]) for side in sides}
        return result

    # Figures, ours and the peer's; None where spconv is not installed.

    def stage(self, what: str, stage: str) -> tuple[float, float | None]:
        """Return the milliseconds of one stage of "inference" or "training"."""
        return self._both(what, lambda stages: stages[stage])

    def outside_dense(self, what: str) -> tuple[float, float | None]:
        """Return the milliseconds of all stages but the dense network."""
        return self._both(what, lambda stages: sum(stages.values()) - stages[DENSE])

    def whole(self, what: str) -> tuple[float, float | None]:
        """Return the milliseconds of all stages."""
        return self._both(what, lambda stages: sum(stages.values()))

    def memory(self) -> tuple[float, float | None]:
        """Return the peak memory of a training step, megabytes."""
        ours = peak_bytes(lambda: self._train(Clock(), False)) / 1e6
        return ours, None if self._theirs is None else peak_bytes(lambda: self._train(Clock(), True)) / 1e6

    def _both(self, what: str, figure: Callable[[dict[str, float]], float]) -> tuple[float, float | None]:
        peer = self._medians.get((what, True))
        return figure(self._medians[what, False]), None if peer is None else figure(peer)


class _SpconvSide:
    """Voxelization and sparse backbone by spconv, as OpenPCDet's data loader and network call them."""

    def __init__(self, grid: Any, points: PointCloudBatch, residual: bool) -> None:
        from spconv.pytorch.utils import PointToVoxel  # pyright: ignore[reportMissingImports]

        self._table = torch.cat([points.xyz, points.features], 1)
        # The most that OpenPCDet's configs allow, more where more are there.
        most = max(40_000, len(voxelize_mean(points, grid).coords))
        bounds = [*grid.low, *grid.high]
        self._generator = PointToVoxel(list(grid.voxel_size), bounds, self._table.shape[1], most, 5)
        net = spconv_network(self._table.shape[1], residual)
        assert net is not None
        self._net, self._spconv = net, import_spconv()
        z, y, x = grid.shape
        self._shape = [z + 1, y, x]

        def run() -> None:
            with torch.no_grad():
                self.encode(*self.voxelize())

        self.threads = better_threads(run)

    def voxelize(self) -> tuple[Tensor, Tensor]:
        """Return the mean of each voxel's points, and coords [batch, z, y, x]."""
        voxels, coords, count = self._generator(self._table)
        mean = voxels.sum(1) / count.clamp(min=1).float()[:, None]
        return mean, torch.nn.functional.pad(coords, (1, 0))

    def encode(self, features: Tensor, coords: Tensor) -> Tensor:
        """Return the map (1, C, H, W)."""
        assert self._spconv is not None
        tensor = self._spconv.SparseConvTensor(features, coords.int(), self._shape, 1)
        dense = self._net(tensor).dense()
        return dense.flatten(1, 2)


def _leaves(outputs: Any) -> Any:
    """Return the outputs with their numbers as leaves of a new graph."""
    fields = {
        field.name: value.detach().clone().requires_grad_()
        for field in dataclasses.fields(outputs)
        if isinstance(value := getattr(outputs, field.name), Tensor)
    }
    return dataclasses.replace(outputs, **fields)


def _floats(outputs: Any) -> list[Tensor]:
    values = (getattr(outputs, field.name) for field in dataclasses.fields(outputs))
    return [value for value in values if isinstance(value, Tensor)]
