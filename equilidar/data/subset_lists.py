"""Published lists of label subsets: what a draw must give, so that two people who say "5 %, seed 1" mean one thing.

The files lie in `label_lists/`; `tools/splits.py` writes them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equilidar.atomic_file import atomic_file
from equilidar.data.listing import content_hash
from equilidar.data.subset_draw import Mode, Subset, count_of, drawn_order, label_subset

FOLDER = Path(__file__).with_name("label_lists")
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class SubsetLists:
    """The subsets of one dataset at several fractions and seeds.

    Attributes:
        name: of the dataset and its split.
        mode: what is drawn.
        num: frames, or sequences, that there are.
        index_hash: of the sorted keys of all frames, or of the sequences' names where these alone were known.
        hashes: by seed and fraction, `Subset.hash`; of sequence lists only where the frames were known.
        sequence_hashes: by seed and fraction, of the sorted names of the drawn sequences; empty for frames.
        order: by seed, names in the order of the draw up to the largest fraction; empty where only hashes are given.
    """

    name: str
    mode: Mode
    num: int
    index_hash: str
    hashes: dict[str, dict[str, str]]
    sequence_hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    order: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        name: str,
        keys: Sequence[str],
        sequences: Mapping[str, str] | None = None,
        *,
        fractions: Sequence[float] = FRACTIONS,
        seeds: Sequence[int] = SEEDS,
        with_order: bool = True,
    ) -> "SubsetLists":
        """Draw all subsets.

        Args:
            name: of the dataset and its split.
            keys: of all sweeps; empty where only the names of sequences are known.
            sequences: of each key (or, without keys, each sequence by itself): whole sequences are drawn.
            fractions: of the whole.
            seeds: of the draws.
            with_order: keep the names; otherwise hashes alone.
        """
        names = sorted(set(sequences.values())) if sequences is not None else list(keys)
        longest = count_of(max(fractions), len(names))
        hashes: dict[str, dict[str, str]] = {}
        of_sequences: dict[str, dict[str, str]] = {}
        for seed in seeds:
            for fraction in fractions:
                taken = drawn_order(names, seed)[: count_of(fraction, len(names))]
                if sequences is not None:
                    of_sequences.setdefault(str(seed), {})[f"{fraction:g}"] = content_hash(sorted(taken))
                if keys:
                    drawn = label_subset(keys, fraction, seed, sequences)
                    hashes.setdefault(str(seed), {})[f"{fraction:g}"] = drawn.hash
        order = {str(seed): drawn_order(names, seed)[:longest] for seed in seeds} if with_order else {}
        mode: Mode = "frame" if sequences is None else "sequence"
        return cls(name, mode, len(names), _index_hash(keys or names), hashes, of_sequences, order)

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.mode}.json"

    def save(self, path: Path) -> None:
        """Write JSON with one seed a line, names without the part that all begin with; atomically."""
        prefix = _common_folder([name for names in self.order.values() for name in names])
        order = {seed: " ".join(name.removeprefix(prefix) for name in names) for seed, names in self.order.items()}
        content = {**vars(self), "prefix": prefix, "order": order}
        with atomic_file(path) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "SubsetLists":
        """Read a file that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no list, or a hash does not fit its names: the file was edited.
        """
        if not path.is_file():
            raise FileNotFoundError(f"labels.lists: no file {path}; published are: {', '.join(published())}")
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            prefix = content.pop("prefix")
            order = {seed: [prefix + name for name in text.split()] for seed, text in content.pop("order").items()}
            lists = cls(**content, order=order)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"labels.lists: {path} holds no lists of label subsets ({error})") from error
        lists._check_edited(path)
        return lists

    def check(self, subset: Subset) -> None:
        """Raise ValueError unless a draw from the same index is what these lists say."""
        seed, fraction = str(subset.seed), f"{subset.fraction:g}"
        listed = self.hashes.get(seed, {}).get(fraction)
        found = subset.hash
        if listed is None:  # an unlisted seed or fraction; or the frames were not known, only the sequences
            listed = self.sequence_hashes.get(seed, {}).get(fraction)
            found = content_hash(sorted(subset.sequences))
        if listed is not None and listed != found:
            raise ValueError(
                f"labels: the subset at fraction {subset.fraction:g}, seed {subset.seed} has hash {found}, "
                f"{self.file_name} expects {listed}"
            )

    def _check_edited(self, path: Path) -> None:
        hashes = self.hashes if self.mode == "frame" else self.sequence_hashes
        for seed, names in self.order.items():
            for fraction, expected in hashes[seed].items():
                if content_hash(sorted(names[: count_of(float(fraction), self.num)])) != expected:
                    raise ValueError(
                        f"labels.lists: {path}: hash {expected} of fraction {fraction}, seed {seed} is not that of its "
                        "names; the file was edited"
                    )


def write_lists(lists: SubsetLists, folder: Path, *, force: bool = False) -> Path:
    """Write NAME_MODE.json into a folder.

    Args:
        lists: what was drawn.
        folder: created if need be.
        force: replace a file that says something else.

    Raises:
        ValueError: lists of this name, in the folder or published with the package, expect something else.
    """
    path = folder / lists.file_name
    for expected in (path, FOLDER / lists.file_name):
        if force or not expected.is_file():
            continue
        known = SubsetLists.load(expected)
        if known.index_hash != lists.index_hash:
            raise ValueError(
                f"{expected} expects {known.num} {known.mode}s with index hash {known.index_hash}, these are "
                f"{lists.num} with index hash {lists.index_hash}: take another name, or give force=true"
            )
        for seed, by_fraction in (lists.sequence_hashes or lists.hashes).items():
            for fraction, found in by_fraction.items():
                wanted = (known.sequence_hashes or known.hashes).get(seed, {}).get(fraction, found)
                if wanted != found:
                    raise ValueError(
                        f"{expected} expects hash {wanted} at fraction {fraction}, seed {seed}, computed was {found}: "
                        "give force=true to replace it"
                    )
    lists.save(path)
    return path


def write_text(
    stem: str,
    keys: Sequence[str],
    sequences: Mapping[str, str] | None,
    folder: Path,
    *,
    fractions: Sequence[float],
    seeds: Sequence[int],
) -> None:
    """Write each subset as a text file of keys, one a line, as other frameworks read them (ImageSets)."""
    for seed in seeds:
        for fraction in fractions:
            subset = label_subset(keys, fraction, seed, sequences)
            with atomic_file(folder / f"{stem}_{fraction:g}_seed{seed}.txt") as file:
                file.write("".join(f"{key}\n" for key in subset.keys).encode())


def format_lists(lists: SubsetLists) -> str:
    """Return sizes and hashes as a text table: a row for each fraction, a column for each seed."""
    hashes = lists.hashes or lists.sequence_hashes
    fractions = list(next(iter(hashes.values())))
    lines = [f"{lists.name}: {lists.num} {lists.mode}s, index hash {lists.index_hash}"]
    lines.append(f"{'fraction':>8} {lists.mode + 's':>10}" + "".join(f"{'seed ' + seed:>18}" for seed in hashes))
    for fraction in fractions:
        row = "".join(f"{by_fraction[fraction]:>18}" for by_fraction in hashes.values())
        lines.append(f"{fraction:>8} {count_of(float(fraction), lists.num):>10}{row}")
    return "\n".join(lines)


def published() -> dict[str, Path]:
    """Return the lists that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.json"))}


def check_against(lists: str, subset: Subset, keys: Sequence[str], sequences: Mapping[str, str] | None) -> str | None:
    """Compare a draw with published lists and return their name, None where none are of this index.

    Args:
        lists: "auto", a name or a path; see `LabelledSubset`.
        subset: the draw.
        keys: it was drawn from.
        sequences: of each key, where sequences were drawn.

    Raises:
        FileNotFoundError: there are no such lists.
        ValueError: the lists are of another index or mode, or the draw differs from them.
    """
    names = sorted(set((sequences or {}).values()))

    def fits(own: SubsetLists) -> bool:
        return own.mode == subset.mode and own.index_hash == _index_hash(keys if own.hashes else names)

    if lists == "auto":
        own = next((found for path in published().values() if fits(found := SubsetLists.load(path))), None)
    else:
        known = published()
        own = SubsetLists.load(known.get(lists, known.get(f"{lists}_{subset.mode}", Path(lists))))
        if not fits(own):
            raise ValueError(
                f"labels.lists: {own.file_name} was made by {own.mode} from {own.num} {own.mode}s with index hash "
                f"{own.index_hash}, this dataset has {len(keys)} frames with index hash {_index_hash(keys)}"
            )
    if own is None:
        return None
    own.check(subset)
    return own.file_name.removesuffix(".json")


def _index_hash(names: Sequence[str]) -> str:
    return content_hash(sorted(names))


def _common_folder(names: Sequence[str]) -> str:
    if not names:
        return ""
    first, last = min(names), max(names)
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[: first.rfind("/", 0, shared) + 1]
