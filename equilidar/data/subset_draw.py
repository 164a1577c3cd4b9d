"""Drawing label fractions: nested, seeded subsets of names, with a hash of what they hold."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from equilidar.atomic_file import atomic_file
from equilidar.data.listing import content_hash

Mode = Literal["frame", "sequence"]


@dataclass(frozen=True)
class Subset:
    """Which sweeps keep their labels.

    Attributes:
        keys: in the order of the full list.
        hash: of the sorted keys; whatever is built from the labels (a gt-sampling database) carries the same one.
        fraction: of the full list.
        seed: of the draw.
        mode: what was drawn, single frames or whole sequences.
        sequences: those that were drawn, in the order of the draw; empty for frames.
    """

    keys: tuple[str, ...]
    hash: str
    fraction: float
    seed: int
    mode: Mode = "frame"
    sequences: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write the list as JSON, atomically."""
        with atomic_file(path) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> "Subset":
        """Read a list that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the hash does not fit the keys: the file was edited.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no label subset {path}")
        content = json.loads(path.read_text())
        subset = cls(**{**content, "keys": tuple(content["keys"]), "sequences": tuple(content.get("sequences", ()))})
        if subset.hash != content_hash(sorted(subset.keys)):
            raise ValueError(f"{path}: hash {subset.hash} is not that of its keys; the list was edited")
        return subset

    def identity(self) -> dict[str, Any]:
        """Return what a run and all that is built from the labels say of the subset."""
        drawn = {"num_sequences": len(self.sequences)} if self.mode == "sequence" else {}
        return {"fraction": self.fraction, "seed": self.seed, "mode": self.mode, "hash": self.hash, **drawn}


def drawn_order(names: Sequence[str], seed: int) -> list[str]:
    """Return names in a seeded order that depends on the set of names alone, not on the order they are given in.

    Raises:
        ValueError: there are no names, or one is given twice.
    """
    ordered = sorted(names)
    if not ordered or len(set(ordered)) != len(ordered):
        raise ValueError(f"label subset: {len(ordered)} keys, {len(ordered) - len(set(ordered))} of them repeated")
    return [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]


def count_of(fraction: float, num: int) -> int:
    """Return how many of `num` frames or sequences a fraction is: rounded, at least one.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"labels.fraction must lie in (0, 1], got {fraction}")
    return max(1, round(fraction * num))


def label_subset(keys: Sequence[str], fraction: float, seed: int, sequences: Mapping[str, str] | None = None) -> Subset:
    """Draw round(fraction * number) frames, or sequences with all their frames; at least one.

    They are put into one seeded order and its beginning is taken: for one seed 5 % lie inside 10 % inside 20 %. The
    draw depends on the set of keys, not on their order.

    Args:
        keys: names of all labelled sweeps, each once.
        fraction: in (0, 1].
        seed: of the draw.
        sequences: of each key: whole sequences are drawn, of which `fraction` is a part by number, not by frames.

    Raises:
        ValueError: the fraction is out of range, there are no keys, or one is twice in the list.
    """
    if sequences is None:
        drawn = set(drawn_order(keys, seed)[: count_of(fraction, len(keys))])
        chosen = tuple(key for key in keys if key in drawn)
        return Subset(chosen, content_hash(sorted(chosen)), fraction, seed)
    drawn_order(keys, seed)  # for its checks
    names = drawn_order(list(set(sequences.values())), seed)
    taken = names[: count_of(fraction, len(names))]
    chosen = tuple(key for key in keys if sequences[key] in set(taken))
    return Subset(chosen, content_hash(sorted(chosen)), fraction, seed, "sequence", tuple(taken))
