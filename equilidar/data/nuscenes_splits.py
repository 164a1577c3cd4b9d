"""Which nuScenes scenes belong to which split."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from equilidar.formats.nuscenes_splits import OFFICIAL_SPLITS, split_scenes

SPLITS = (*OFFICIAL_SPLITS, "all")


def select_scenes(split: str | Path | Sequence[str], known: Iterable[str], source: Path) -> list[str]:
    """Return the scenes to read, in order of their names.

    Args:
        split: an official split (its scenes that the tables know: the mini release has few), "all", a text file with
            one name a line, or names.
        known: names in the tables.
        source: the table, for messages.

    Raises:
        FileNotFoundError: no such list.
        ValueError: an unknown split or scene, or no scene is left.
    """
    known = set(known)
    if split == "all":
        return sorted(known)
    if isinstance(split, str) and split in OFFICIAL_SPLITS:
        found = known.intersection(split_scenes(split))
        if not found:
            raise ValueError(f"{source}: no scene of split {split!r} among its {len(known)}; set dataset.split")
        return sorted(found)
    if isinstance(split, str | Path):
        path = Path(split)
        if not path.is_file():
            if path.suffix:
                raise FileNotFoundError(f"no list of scenes {path}; set dataset.split")
            raise ValueError(
                f"dataset.split must be one of {', '.join(SPLITS)}, a file or a list of scenes, got {str(split)!r}"
            )
        names = path.read_text().split()
    else:
        names = list(split)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"{source}: no scene {', '.join(unknown[:5]) or 'is asked for'}; set dataset.split")
    return sorted(set(names))
