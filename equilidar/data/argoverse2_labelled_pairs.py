"""Argoverse 2's pairs with flow files, and whose points are whose: what estimators are measured on."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from equilidar.data.argoverse2_flow import Argoverse2Flow
from equilidar.data.argoverse2_labelled import Argoverse2Objects
from equilidar.data.feather import read_feather
from equilidar.formats.argoverse2_annotations import CATEGORIES
from equilidar.structures import LabelledPair, SweepPairBatch

_DYNAMIC_SPEED = 0.5
_MARGIN = 0.1  # metres; annotated boxes are tight, and flow files count points on their faces
# What tools call the same column.
_CATEGORY = ("classes", "category_indices")
_DYNAMIC = ("dynamic", "is_dynamic")
_GROUND = ("is_ground_0", "is_ground")


class Argoverse2LabelledPairs:
    """`Argoverse2Flow` with classes, motion, ground and objects.

    Classes, what moves and what lies on the ground are from the flow file where it has the columns; without them the
    class is that of the annotated box around a point, and what moves is told by the flow. Objects are the annotated
    boxes of the source sweep, where the log has annotations. At rest a point flows with the ego motion.

    Args:
        pairs: of the logs.
    """

    def __init__(self, pairs: Argoverse2Flow) -> None:
        self.pairs, self.name, self.keys = pairs, pairs.name, pairs.keys
        self._folders = {log.name: log for log in pairs.logs}
        self._log_in_memory: tuple[Path, Argoverse2Objects] | None = None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> LabelledPair:
        """Return pair `index`; raises FaultySweepError where sweeps, flow file or annotations cannot be used."""
        pair, path = self.pairs[index], self.pairs.flow_files[index]
        assert pair.flow is not None
        batch = SweepPairBatch.collate([pair])
        xyz = pair.source.xyz
        rest = batch.target_T_source.apply(xyz, batch.source.offsets) - xyz
        columns = read_feather(path, (), optional=(*_CATEGORY, *_DYNAMIC, *_GROUND))
        instance, boxed = self._objects(pair.source.key, xyz)
        category = _first(columns, _CATEGORY)
        dynamic = _first(columns, _DYNAMIC)
        ground = _first(columns, _GROUND)
        moves = (pair.flow - rest).norm(dim=1) > _DYNAMIC_SPEED * batch.gap
        category = boxed if category is None else torch.from_numpy(category.astype(np.int64))
        return LabelledPair(
            pair,
            rest,
            moves if dynamic is None else torch.from_numpy(dynamic.astype(bool)),
            category,
            torch.where(category > 0, instance, -1),
            None if ground is None else torch.from_numpy(ground.astype(bool)),
        )

    def _objects(self, key: str, xyz: Float[Tensor, "N 3"]) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Return track number and category of the annotated box around each point, -1 and 0 where there is none."""
        _, name, time = key.rsplit("/", 2)
        log = self._folders[name]
        instance, category = torch.full((len(xyz),), -1), torch.zeros(len(xyz), dtype=torch.int64)
        if not (log / "annotations.feather").is_file():
            return instance, category
        if self._log_in_memory is None or self._log_in_memory[0] != log:
            self._log_in_memory = (log, Argoverse2Objects.read(log))
        objects = self._log_in_memory[1]
        boxes = objects.select(objects.timestamp_ns == int(time)).boxes(CATEGORIES)
        # The largest first, so that a rider keeps their points and not the bus beside them.
        for row in boxes.size.prod(1).argsort(descending=True).tolist():
            inside = boxes.rows(torch.tensor([row]), torch.tensor([0, 1])).contains(xyz, _MARGIN)[0]
            instance[inside], category[inside] = boxes.track[row], 1 + boxes.label[row]
        return instance, category


def _first(columns: dict[str, NDArray], names: tuple[str, ...]) -> NDArray | None:
    return next((columns[name] for name in names if name in columns), None)
