"""What every file that we write says of its tensors, whatever the format."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from equilidar.checkpoint.identity import WEIGHT_LAYOUT
from equilidar.structures.boxes import BOX_CONVENTION
from equilidar.structures.grid import GridSpec

_KEY = "record"


@dataclass(frozen=True)
class FileRecord:
    """What tensors mean, so that nobody has to guess it from their shapes.

    Attributes:
        format: of the names: equilidar-backbone-1, equilidar-detector-1 or openpcdet.
        spconv_layout: axis order of sparse kernels, see `sparse_layout`.
        backbone_class: name of the backbone's class.
        in_features: input columns, coordinates included.
        voxel_size: (x, y, z) metres.
        range: x0, y0, z0, x1, y1, z1 metres.
        box_convention: of boxes that a head has learned.
    """

    format: str
    spconv_layout: str
    backbone_class: str
    in_features: int
    voxel_size: list[float]
    range: list[float]
    box_convention: str

    @classmethod
    def of(
        cls, format_: str, backbone_class: str, in_features: int, grid: GridSpec, layout: str = WEIGHT_LAYOUT
    ) -> "FileRecord":
        """Describe the tensors of a backbone, or of a detector on it."""
        bounds = [*grid.low, *grid.high]
        return cls(format_, layout, backbone_class, in_features, list(grid.voxel_size), bounds, BOX_CONVENTION)

    @classmethod
    def from_dict(cls, values: Any) -> "FileRecord | None":
        """Read what `as_dict` gave; None where it is none."""
        names = [one.name for one in fields(cls)]
        if not isinstance(values, Mapping) or not all(name in values for name in names):
            return None
        if not all(isinstance(values[name], str) for name in ("format", "spconv_layout")):
            return None
        return cls(**{name: values[name] for name in names})

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "FileRecord | None":
        """Read the record of a safetensors file; None where it has none."""
        try:
            return cls.from_dict(json.loads(metadata.get(_KEY, "null")))
        except ValueError:
            return None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def as_metadata(self) -> dict[str, str]:
        """Return the record for a safetensors file."""
        return {_KEY: json.dumps(self.as_dict(), sort_keys=True)}
