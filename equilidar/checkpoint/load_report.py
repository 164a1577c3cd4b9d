"""What became of each tensor of a loaded file."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_COLUMNS = ("loaded", "reshaped", "missing", "unexpected", "misshaped")


@dataclass(frozen=True)
class LoadReport:
    """Names of tensors, as the file calls them, by what became of them.

    Attributes:
        source: the file, or what else the tensors came from.
        loaded: in the file and in the network, of one shape.
        missing: in the network alone.
        unexpected: in the file alone.
        misshaped: in both, as "name: (file shape) for (network shape)".
        content_hash: of the file's tensors; "" if it states none.
        notes: what differs and does no harm, such as another range.
        reshaped: those of `loaded` whose axes or channels were changed to fit.
        skipped: in the file, and not of what was to be loaded: counters, heads, decoders.
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: tuple[str, ...]
    content_hash: str = ""
    notes: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def coverage(self) -> float:
        """Return the fraction of the network's tensors that were loaded."""
        wanted = len(self.loaded) + len(self.missing) + len(self.misshaped)
        return len(self.loaded) / wanted if wanted else 0.0

    def table(self) -> str:
        """Return a table of counts per module, then the names of what was not loaded."""
        counts: dict[str, dict[str, int]] = {}
        for column in _COLUMNS:
            for name in getattr(self, column):
                row = counts.setdefault(name.partition(".")[0], dict.fromkeys(_COLUMNS, 0))
                row[column] += 1
        width = max([len("module"), len("total"), *(len(name) for name in counts)])
        total = {column: len(getattr(self, column)) for column in _COLUMNS}
        lines = [f"weights from {self.source}"]
        lines.append(f"{'module':<{width}}  " + "  ".join(f"{column:>10}" for column in _COLUMNS))
        for name, row in [*counts.items(), ("total", total)]:
            lines.append(f"{name:<{width}}  " + "  ".join(f"{row[column]:>10}" for column in _COLUMNS))
        for column in ("missing", "unexpected", "misshaped"):
            lines += [f"{column}: {name}" for name in getattr(self, column)]
        lines += [f"note: {note}" for note in self.notes]
        if self.content_hash:
            lines.append(f"content hash: {self.content_hash}")
        return "\n".join(lines)


def load_covering(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    *,
    threshold: float = 1.0,
    content_hash: str = "",
    notes: tuple[str, ...] = (),
    shown: Callable[[str], str] = str,
    unexpected: tuple[str, ...] = (),
    reshaped: Collection[str] = (),
    skipped: tuple[str, ...] = (),
    kept: Collection[str] = (),
    hint: str = "",
) -> LoadReport:
    """Copy tensors into a network if they cover it, and print what became of each; else change nothing.

    Args:
        network: a backbone or a detector.
        tensors: by the network's names.
        source: the file, for messages.
        threshold: fraction of the network's tensors that must be covered.
        content_hash: see `LoadReport`.
        notes: see `LoadReport`.
        shown: from a name of the network to that in the file.
        unexpected: names in the file of tensors that should have been the network's.
        reshaped: names of the network whose tensors were changed to fit.
        skipped: see `LoadReport`.
        kept: names of the network that stay as they are, and need not be covered.
        hint: what to do where it is not covered, for the message.

    Raises:
        ValueError: less than `threshold` of the network's tensors are covered, a tensor is not finite, or, where all
            are required, the file holds tensors that the network has no place for.
    """
    state = {name: value for name, value in network.state_dict().items() if name not in kept}
    fitting = {name for name in state.keys() & tensors.keys() if state[name].shape == tensors[name].shape}
    loaded = [name for name in state if name in fitting]
    report = LoadReport(
        source,
        tuple(shown(name) for name in loaded),
        tuple(shown(name) for name in state if name not in tensors),
        (*(name for name in tensors if name not in state and name not in kept), *unexpected),
        tuple(
            f"{shown(name)}: {tuple(tensors[name].shape)} for {tuple(state[name].shape)}"
            for name in state
            if name in tensors and name not in fitting
        ),
        content_hash,
        notes,
        tuple(shown(name) for name in loaded if name in reshaped),
        skipped,
    )
    print(report.table(), flush=True)
    if report.coverage < threshold or (threshold >= 1 and report.unexpected):
        remedy = hint or "build grid, backbone and detector as the file's were built, or choose another file"
        raise ValueError(
            f"{source} covers {report.coverage:.1%} of the {type(network).__name__} "
            f"({_some('missing', report.missing)}, "
            f"{_some('mis-shaped', report.misshaped)}, {_some('unexpected', report.unexpected)}; at least "
            f"{threshold:.1%} and nothing unexpected is required): {remedy}"
        )
    check_finite({shown(name): tensors[name] for name in loaded}, source)
    with torch.no_grad():
        for name in loaded:
            state[name].copy_(tensors[name])
    return report


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise ValueError if a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{source}: {name} holds numbers that are not finite")


def _some(what: str, names: tuple[str, ...]) -> str:
    """Return how many, with the first of them by its name alone."""
    return f"{len(names)} {what}" + (f" like {names[0].partition(':')[0]}" if names else "")
