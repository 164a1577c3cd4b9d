"""Names of tensors there and here, as tables of prefixes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Kept by spconv for memory planning where it is asked to.
_COUNTERS = "_max_num_voxels_during_training"
_BLOCK = re.compile(r"(blocks\.\d+\.)(\d+)(\..*)")


@dataclass(frozen=True)
class Rename:
    """A row of a table: names that begin with `theirs` there begin with `ours` here.

    Attributes:
        theirs: prefix there.
        ours: prefix here.
        padding_layers: layers that only they put first into each "blocks.I" (a padding, where our convolution pads by
            itself), so that what is blocks.I.J there is blocks.I.(J - padding_layers) here.
    """

    theirs: str
    ours: str
    padding_layers: int = 0


@dataclass(frozen=True)
class KeyMap:
    """A bijection of names by prefix; of several rows that fit, the longest prefix decides.

    Attributes:
        name: of what the names there belong to.
        rows: the table.
        nothing_here: names there that mean nothing here (counters), or first parts of such names.
    """

    name: str
    rows: tuple[Rename, ...]
    nothing_here: tuple[str, ...] = ()

    def means_nothing(self, key: str) -> bool:
        """Tell whether a name there is known to have no counterpart."""
        return key.partition(".")[0] in self.nothing_here or key.endswith(_COUNTERS)

    def ours(self, key: str) -> str | None:
        """Return the name here; None where no row fits."""
        row = max((row for row in self.rows if key.startswith(row.theirs)), key=_their_length, default=None)
        if row is None or self.means_nothing(key):
            return None
        return row.ours + _shifted(key.removeprefix(row.theirs), -row.padding_layers)

    def theirs(self, name: str) -> str | None:
        """Return the name there; None where no row fits. The inverse of `ours`."""
        row = max((row for row in self.rows if name.startswith(row.ours)), key=_our_length, default=None)
        return None if row is None else row.theirs + _shifted(name.removeprefix(row.ours), row.padding_layers)


def wrapper_of(keys: Iterable[str], anchor: str, source: str, asked: str | None = None) -> str:
    """Return what stands before a network's names in a file: "module.", "model.", "teacher.backbone_3d." ...

    Args:
        keys: all names of the file.
        anchor: a name that the network must have.
        source: name for messages.
        asked: how the prefix begins, where there are several networks (student and teacher).

    Raises:
        ValueError: the file holds no such network, or several.
    """
    keys = list(keys)
    found = sorted({key.removesuffix(anchor) for key in keys if key == anchor or key.endswith(f".{anchor}")})
    chosen = [prefix for prefix in found if asked is None or prefix.startswith(asked)]
    if asked in found:  # "" as well, where one network lies beside what wraps the other
        return asked
    if len(chosen) == 1:
        return chosen[0]
    if found:
        listed = ", ".join(repr(prefix) for prefix in found)
        what = "several networks" if asked is None else f"prefix={asked} fits {len(chosen)} of its networks"
        raise ValueError(f"{source}: {what}, under {listed}: choose one by prefix=...")
    tops = sorted({".".join(key.split(".")[:2]) for key in keys})
    more = "" if len(tops) <= 8 else f" and {len(tops) - 8} more"
    raise ValueError(f"{source} has no tensor {anchor}; its names begin with {', '.join(tops[:8])}{more}")


def _their_length(row: Rename) -> int:
    return len(row.theirs)


def _our_length(row: Rename) -> int:
    return len(row.ours)


def _shifted(rest: str, layers: int) -> str:
    block = _BLOCK.fullmatch(rest) if layers else None
    return f"{block[1]}{int(block[2]) + layers}{block[3]}" if block else rest
