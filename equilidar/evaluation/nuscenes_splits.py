"""Scenes that are evaluated."""

from pathlib import Path

from equilidar.formats.nuscenes_splits import OFFICIAL_SPLITS, split_scenes


def scenes_of_split(split: str, scenes: set[str]) -> set[str]:
    """Return the names of the scenes of a split.

    Args:
        split: one of the official ones, or a text file with one scene name a line.
        scenes: the scenes of the release at hand.

    Raises:
        ValueError: the split is unknown, or the release lacks scenes of it.
    """
    if split in OFFICIAL_SPLITS:
        wanted = set(split_scenes(split))
    elif Path(split).is_file():
        wanted = set(Path(split).read_text().split())
    else:
        raise ValueError(f"split is {split!r}, expected {', '.join(OFFICIAL_SPLITS)} or a text file of scene names")
    if absent := sorted(wanted - scenes):
        raise ValueError(
            f"the tables lack {len(absent)} of {len(wanted)} scenes of split {split} ({', '.join(absent[:3])}, ...): "
            "train and val are of v1.0-trainval, test of v1.0-test, mini_train and mini_val of v1.0-mini"
        )
    return wanted
