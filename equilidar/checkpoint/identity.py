"""What a backbone's weights are good for: recorded when they are saved, compared before they are loaded."""

import hashlib
import importlib.metadata
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any

import torch
from torch import Tensor, nn

from equilidar.backbones.feature_info import Backbone
from equilidar.structures import GridSpec, SensorContract
from equilidar.structures.boxes import BOX_CONVENTION

WEIGHT_LAYOUT = "krsc"


@dataclass(frozen=True)
class BackboneIdentity:
    """Everything about a backbone that its weights depend on, and where they came from.

    Attributes:
        backbone: package and class, "equilidar.VoxelBackBone8x".
        arguments: constructor arguments without which the weights mean something else.
        grid: low, high and voxel_size of the input grid. Only the voxel size must agree: convolutions fit any range.
        in_channels: input columns.
        contract: channels, scales and frame of the points.
        weight_layout: axis order of sparse kernels: "krsc" is (out, kz, ky, kx, in).
        box_convention: of boxes that a head on this backbone has learned.
        package: version of this package that wrote the file.
        revision: its git commit, "" where there is none.
        content_hash: SHA-256 over names, dtypes, shapes and bytes of all tensors.
    """

    backbone: str
    arguments: dict[str, Any]
    grid: dict[str, list[float]]
    in_channels: int
    contract: dict[str, Any]
    weight_layout: str
    box_convention: str
    package: str
    revision: str
    content_hash: str

    @classmethod
    def of(cls, backbone: Backbone, contract: SensorContract, tensors: Mapping[str, Tensor]) -> "BackboneIdentity":
        """Describe a backbone in memory, to be fed with points under `contract`."""
        kind = type(backbone)
        return cls(
            f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}",
            backbone.arguments,
            _grid_dict(backbone.grid),
            backbone.in_channels,
            {"channels": list(contract.channels), "scales": list(contract.scales), "frame": contract.frame},
            WEIGHT_LAYOUT,
            BOX_CONVENTION,
            importlib.metadata.version("equilidar"),
            _git_revision(),
            content_hash(tensors),
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "BackboneIdentity":
        """Read what `as_dict` gave; unknown fields of later versions are left out.

        Raises:
            ValueError: a field is missing.
        """
        names = [field.name for field in fields(cls)]
        if missing := [name for name in names if name not in values]:
            raise ValueError(f"its identity lacks {', '.join(missing)}")
        return cls(**{name: values[name] for name in names})

    @property
    def class_name(self) -> str:
        """Return the name of the backbone's class."""
        return self.backbone.rpartition(".")[2]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    def differences(self, wanted: "BackboneIdentity") -> dict[str, tuple[Any, Any]]:
        """Return the fields in which these weights (first value) are not what is `wanted` (second value)."""
        found, needed = self._compared(), wanted._compared()
        return {
            name: (found.get(name), needed.get(name)) for name in found | needed if found.get(name) != needed.get(name)
        }

    def _compared(self) -> dict[str, Any]:
        compared = {
            "backbone": self.backbone,
            "grid.voxel_size": self.grid["voxel_size"],
            "in_channels": self.in_channels,
            "weight_layout": self.weight_layout,
            "box_convention": self.box_convention,
        }
        compared |= {f"backbone.{name}": value for name, value in self.arguments.items()}
        return compared | {f"contract.{name}": value for name, value in self.contract.items()}


def contract_from(values: Mapping[str, Any]) -> SensorContract:
    """Return the contract that plain values (channels, scales, frame) describe.

    Raises:
        ValueError: one is missing or of another kind.
    """
    try:
        channels, scales, frame = values["channels"], values["scales"], values["frame"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"contract must have channels, scales and frame, got {values}") from error
    if frame not in ("sensor", "ego"):
        raise ValueError(f"contract.frame must be sensor or ego, got {frame!r}")
    if not _is_list_of(channels, str) or not _is_list_of(scales, int | float):
        raise ValueError(
            f"contract.channels must be a list of names and contract.scales one of numbers, got {channels} and {scales}"
        )
    return SensorContract(tuple(channels), tuple(map(float, scales)), frame)


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, whatever their order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # As bytes, for NumPy knows no bfloat16.
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensors_of(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the state of a backbone as contiguous CPU tensors."""
    return {name: value.detach().cpu().contiguous() for name, value in backbone.state_dict().items()}


def _is_list_of(value: Any, kind: type | UnionType) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


def _grid_dict(grid: GridSpec) -> dict[str, list[float]]:
    return {"low": list(grid.low), "high": list(grid.high), "voxel_size": list(grid.voxel_size)}


def _git_revision() -> str:
    """Return the commit of a source checkout; an installed package has none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
