"""Official splits of nuScenes, by the numbers of their scenes (nuscenes-devkit, splits.py)."""

from pathlib import Path

SPLITS = ("train", "val", "test", "mini_train", "mini_val")

_VAL = (
    "3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627 629-630 632-638 770-771 775 "
    "777-778 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972 1059-1073"
)
_TEST = (
    "77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604 606-624 827-831 833-842 844-846 "
    "932-933 935-943 1026-1043"
)
_MINI_TRAIN = "61 553 655 757 796 1077 1094 1100"
_MINI_VAL = "103 916"
_LISTED = {"val": _VAL, "test": _TEST, "mini_train": _MINI_TRAIN, "mini_val": _MINI_VAL}


def scenes_of_split(split: str, scenes: set[str]) -> set[str]:
    """Return the names of the scenes of a split.

    Args:
        split: one of SPLITS, or a text file with one scene name a line.
        scenes: the scenes of the release at hand; train is all of them but val.

    Raises:
        ValueError: the split is unknown, or the release lacks scenes of it.
    """
    if split == "train":
        wanted = scenes - _expand(_VAL)
        if not _expand(_VAL) <= scenes:
            raise ValueError("split train is of v1.0-trainval; these tables are of another version (mini_train? test?)")
        return wanted
    if split in _LISTED:
        wanted = _expand(_LISTED[split])
    elif Path(split).is_file():
        wanted = set(Path(split).read_text().split())
    else:
        raise ValueError(f"split is {split!r}, expected {', '.join(SPLITS)} or a text file of scene names")
    if absent := sorted(wanted - scenes):
        raise ValueError(f"the tables lack {len(absent)} scenes of split {split} ({', '.join(absent[:3])}, ...)")
    return wanted


def _expand(ranges: str) -> set[str]:
    names = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        names |= {f"scene-{number:04d}" for number in range(int(first), int(last or first) + 1)}
    return names
