"""What became of each tensor of a loaded file."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LoadReport:
    """Names of tensors by what became of them.

    Attributes:
        source: the file, or what else the tensors came from.
        loaded: in the file and in the backbone, of one shape.
        missing: in the backbone alone.
        unexpected: in the file alone.
        misshaped: in both, as "name: (file shape) for (backbone shape)".
        content_hash: of the file's tensors; "" if it states none.
        notes: what differs and does no harm, such as another range.
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]
    content_hash: str = ""
    notes: tuple[str, ...] = ()

    @property
    def coverage(self) -> float:
        """Return the fraction of the backbone's tensors that were loaded."""
        wanted = len(self.loaded) + len(self.missing) + len(self.misshaped)
        return len(self.loaded) / wanted if wanted else 0.0

    def table(self) -> str:
        """Return a table of counts per module, then the names of what was not loaded."""
        columns = ("loaded", "missing", "unexpected", "misshaped")
        counts: dict[str, dict[str, int]] = {}
        for column in columns:
            for name in getattr(self, column):
                row = counts.setdefault(name.partition(".")[0], dict.fromkeys(columns, 0))
                row[column] += 1
        width = max([len("module"), len("total"), *(len(name) for name in counts)])
        total = {column: len(getattr(self, column)) for column in columns}
        lines = [f"weights from {self.source}"]
        lines.append(f"{'module':<{width}}  " + "  ".join(f"{column:>10}" for column in columns))
        for name, row in [*counts.items(), ("total", total)]:
            lines.append(f"{name:<{width}}  " + "  ".join(f"{row[column]:>10}" for column in columns))
        for column in columns[1:]:
            lines += [f"{column}: {name}" for name in getattr(self, column)]
        lines += [f"note: {note}" for note in self.notes]
        if self.content_hash:
            lines.append(f"content hash: {self.content_hash}")
        return "\n".join(lines)


def load_covering(
    backbone: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    threshold: float = 1.0,
    content_hash: str = "",
    notes: tuple[str, ...] = (),
) -> LoadReport:
    """Copy tensors into a backbone if they cover it, and print what became of each; else change nothing.

    Raises:
        ValueError: less than `threshold` of the backbone's tensors are covered, a tensor is not finite, or, where all
            are required, the file holds tensors that the backbone has no place for.
    """
    state = backbone.state_dict()
    fitting = {name for name in state.keys() & tensors.keys() if state[name].shape == tensors[name].shape}
    report = LoadReport(
        source,
        tuple(name for name in state if name in fitting),
        tuple(name for name in state if name not in tensors),
        tuple(name for name in tensors if name not in state),
        tuple(
            f"{name}: {tuple(tensors[name].shape)} for {tuple(state[name].shape)}"
            for name in state
            if name in tensors and name not in fitting
        ),
        content_hash,
        notes,
    )
    print(report.table(), flush=True)
    if report.coverage < threshold or (threshold >= 1 and report.unexpected):
        raise ValueError(
            f"{source} covers {report.coverage:.1%} of the backbone ({len(report.missing)} tensors missing, "
            f"{len(report.misshaped)} mis-shaped, {len(report.unexpected)} unexpected; at least {threshold:.1%} and "
            "nothing unexpected is required): build the backbone as the file's was built, or choose another file"
        )
    check_finite({name: tensors[name] for name in report.loaded}, source)
    with torch.no_grad():
        for name in report.loaded:
            state[name].copy_(tensors[name])
    return report


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise ValueError if a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{source}: {name} holds numbers that are not finite")
