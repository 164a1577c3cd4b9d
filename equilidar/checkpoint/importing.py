"""Tensors of other code bases into our networks: names, axis orders and input columns change, each is accounted for."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equilidar.checkpoint.key_map import KeyMap, wrapper_of
from equilidar.checkpoint.load_report import LoadReport, load_covering
from equilidar.checkpoint.sparse_layout import Shape, choose_layout, is_kernel, to_krsc

INPUT_FEATURES = ("copy", "zero_pad", "skip")


@dataclass(frozen=True)
class ImportSettings:
    """What the user says of a foreign file.

    Attributes:
        layout: axis order of sparse kernels, by name or version of spconv; None takes the only one that fits.
        input_features: what to do where the first layer has other input columns than ours. "copy": shared columns are
            copied, columns of ours alone stay as initialised, theirs alone are dropped. "zero_pad": as copy, with zeros
            for columns of ours alone, which are ignored so until they are trained. "skip": the layer stays as
            initialised. None: an error.
        threshold: fraction of the network's tensors that must be covered; below 1, unexpected tensors are no error.
        leave_out: first parts of names (below the wrapper) that are not of the network.
        prefix: how the wrapper begins, where a file holds several networks.

    Raises:
        ValueError: `input_features` is unknown, or the threshold is no fraction.
    """

    layout: str | None = None
    input_features: str | None = None
    threshold: float = 1.0
    leave_out: Collection[str] = ()
    prefix: str | None = None

    def __post_init__(self) -> None:
        if self.input_features is not None and self.input_features not in INPUT_FEATURES:
            raise ValueError(f"input_features must be null, {', '.join(INPUT_FEATURES)}; got {self.input_features!r}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must lie above 0 and not above 1, got {self.threshold}")


@dataclass(frozen=True)
class InputLayer:
    """The layer that reads the points.

    Attributes:
        name: of its weight, whose last axis in our layout is the input columns.
        columns: x, y, z and the point features; columns that the network derives from them follow.
    """

    name: str
    columns: int


def input_layer(backbone: nn.Module, prefix: str = "") -> InputLayer:
    """Return the first weight of a backbone, the prefix put before its name."""
    name = next(name for name, value in backbone.state_dict().items() if value.dim() > 1)
    columns = backbone.in_channels
    assert isinstance(columns, int)
    return InputLayer(prefix + name, columns)


def import_state(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    keys: KeyMap,
    first: InputLayer,
    source: str,
    settings: ImportSettings | None = None,
) -> LoadReport:
    """Load foreign tensors into a network, and print what became of each; on any error nothing is changed.

    Args:
        network: a backbone or a detector.
        tensors: the file's.
        keys: table of names, below the wrapper.
        first: the layer that reads the points.
        source: the file, for messages.
        settings: see there.

    Raises:
        ValueError: layout or input columns are not clear, or the tensors do not cover the network.
    """
    settings = settings or ImportSettings()
    state = network.state_dict()
    wrapper = wrapper_of(tensors, _anchor(state, tensors, keys), source, settings.prefix)
    inside = {key.removeprefix(wrapper): value for key, value in tensors.items() if key.startswith(wrapper)}
    skipped = [key for key in tensors if not key.startswith(wrapper)]
    found, unexpected, renamed = {}, [], {}
    for key, value in inside.items():
        name = keys.ours(key)
        if name in state and keys.theirs(name) == key:
            found[name], renamed[name] = value, key
        elif keys.means_nothing(key) or key.partition(".")[0] in settings.leave_out:
            skipped.append(wrapper + key)
        else:
            unexpected.append(key)
    notes = [f"found under {wrapper}"] if wrapper else []
    if skipped:
        outer = ".".join(wrapper.split(".")[:-2])  # what wraps the whole file is no part of it
        beside = (key.removeprefix(wrapper).removeprefix(f"{outer}.") for key in skipped)
        tops = sorted({key.partition(".")[0] for key in beside})
        notes.append(f"left out, not of the {type(network).__name__}: {', '.join(tops)}")

    notes += _casts(found, state)
    adapted = _in_our_layout(found, state, first, source, settings, notes)
    kept = _fit_input(adapted, state, first, source, settings, notes)
    _add_absent_biases(adapted, state, notes)
    changed = {name for name, value in adapted.items() if name not in found or _differs(value, found[name])}
    return load_covering(
        network,
        adapted,
        source,
        threshold=settings.threshold,
        notes=tuple(notes),
        shown=lambda name: keys.theirs(name) or name,
        unexpected=tuple(unexpected),
        reshaped=changed,
        skipped=tuple(skipped),
        kept=kept,
        hint=_hint(state, inside, unexpected, keys),
    )


def _anchor(state: Mapping[str, Tensor], tensors: Collection[str], keys: KeyMap) -> str:
    """Return the first name there, of those that the network needs, that the file holds: damaged ones may lack some."""
    needed = [name for name in map(keys.theirs, state) if name is not None]
    held = (name for name in needed if any(key == name or key.endswith(f".{name}") for key in tensors))
    return next(held, needed[0])


def _in_our_layout(
    found: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    first: InputLayer,
    source: str,
    settings: ImportSettings,
    notes: list[str],
) -> dict[str, Tensor]:
    kernels = {name: value for name, value in found.items() if is_kernel(value)}
    wanted: dict[str, Shape] = {name: tuple(value.shape) for name, value in state.items() if is_kernel(value)}
    if first.name in wanted:
        # Another number of input columns says nothing about the layout.
        wanted[first.name] = (*wanted[first.name][:4], None)
    layout = choose_layout(kernels, wanted, settings.layout, source)
    if layout != "krsc":
        notes.append(f"sparse kernels reordered from {layout} to krsc")
    return {name: to_krsc(value, layout) if name in kernels else value for name, value in found.items()}


def _fit_input(
    tensors: dict[str, Tensor],
    state: Mapping[str, Tensor],
    first: InputLayer,
    source: str,
    settings: ImportSettings,
    notes: list[str],
) -> tuple[str, ...]:
    """Make the first layer fit our input columns; return its name if it is to stay as initialised."""
    if first.name not in tensors:
        return ()
    theirs, ours = tensors[first.name], state[first.name]
    derived = ours.shape[-1] - first.columns
    there = theirs.shape[-1] - derived
    if theirs.shape[:-1] != ours.shape[:-1] or there == first.columns or there < 3:
        return ()
    difference = f"{first.name} has {there} input columns in the file, {first.columns} here"
    if settings.input_features is None:
        raise ValueError(
            f"{source}: {difference}; add input_features=copy (shared columns, the rest as initialised), zero_pad "
            "(zeros for columns that the file lacks) or skip (leave the layer as initialised), or choose other "
            "contract.channels"
        )
    if settings.input_features == "skip":
        del tensors[first.name]
        notes.append(f"{difference}: it stays as initialised (input_features=skip)")
        return (first.name,)
    if settings.input_features == "zero_pad" and there > first.columns:
        raise ValueError(f"{source}: {difference}: nothing to pad; input_features=copy drops the file's last columns")
    shared = min(there, first.columns)
    fitted = torch.zeros_like(ours) if settings.input_features == "zero_pad" else ours.clone()
    fitted[..., :shared] = theirs[..., :shared]
    fitted[..., first.columns :] = theirs[..., there:]
    tensors[first.name] = fitted
    what = {"copy": "the shared ones are copied", "zero_pad": "the rest are zero"}[settings.input_features]
    notes.append(f"{difference}: {what} (input_features={settings.input_features})")
    return ()


def _add_absent_biases(tensors: dict[str, Tensor], state: Mapping[str, Tensor], notes: list[str]) -> None:
    """Set biases of sparse convolutions to zero where the file was made without any: the same network."""
    biases = [name for name in state if _is_kernel_bias(name, state)]
    if any(name in tensors for name in biases):
        return
    absent = [name for name in biases if f"{name.removesuffix('bias')}weight" in tensors]
    tensors.update((name, torch.zeros_like(state[name])) for name in absent)
    if absent:
        notes.append(f"the file's {len(absent)} residual convolutions have no bias: set to zero, the same network")


def _is_kernel_bias(name: str, state: Mapping[str, Tensor]) -> bool:
    weight = state.get(f"{name.removesuffix('bias')}weight")
    return name.endswith(".bias") and weight is not None and is_kernel(weight)


def _casts(found: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Say which numbers are stored in another precision than ours."""
    kinds = Counter(
        (value.dtype, state[name].dtype) for name, value in found.items() if value.dtype != state[name].dtype
    )
    return [f"{count} tensors cast from {theirs} to {ours}" for (theirs, ours), count in kinds.items()]


def _differs(ours: Tensor, theirs: Tensor) -> bool:
    """Tell whether axes or channels were changed; a copy is no change."""
    return ours.shape != theirs.shape or ours.stride() != theirs.stride() or ours.data_ptr() != theirs.data_ptr()


def _hint(state: Mapping[str, Tensor], inside: Mapping[str, Tensor], unexpected: list[str], keys: KeyMap) -> str:
    """Return what to do, where the file's backbone is plainly another one than ours."""

    def is_residual(names: Collection[str]) -> bool:
        return any(".conv1.weight" in name and ".bn1." not in name for name in names)

    there, here = is_residual(list(inside)), is_residual(list(state))
    if there != here:
        kinds = {True: "residual (backbone=voxel_residual)", False: "plain (backbone=voxel_plain)"}
        return f"its backbone is {kinds[there]}, the one here {kinds[here]}"
    if unexpected and not any(keys.ours(key) in state for key in unexpected):
        tops = sorted({key.partition(".")[0] for key in unexpected})
        ours = {(keys.theirs(name) or name).partition(".")[0] for name in state}
        if not ours.intersection(tops):
            return f"if these are no part of the network, add leave_out=[{','.join(tops)}]"
    return ""
