"""Label subsets: nested, seeded, hashed."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equilidar.data.protocols import LabelledDataset
from equilidar.data.sequences import sequences_of
from equilidar.data.subset_draw import Subset, label_subset
from equilidar.data.subsets import LabelledSubset
from tests.data.fake_data import FakeSamples

KEYS = [f"kitti/{i:06d}" for i in range(3712)]


@given(seed=st.integers(0, 1000), small=st.floats(0.001, 1), large=st.floats(0.001, 1))
def test_smaller_fractions_lie_inside_larger_ones(seed: int, small: float, large: float):
    small, large = sorted((small, large))
    assert set(label_subset(KEYS[:50], small, seed).keys) <= set(label_subset(KEYS[:50], large, seed).keys)


def test_sizes_of_the_published_protocol():
    assert [len(label_subset(KEYS, f, 0).keys) for f in (0.05, 0.20, 1.0)] == [186, 742, 3712]
    assert len(label_subset(KEYS[:10], 0.01, 0).keys) == 1


def test_draw_depends_on_the_set_of_keys_and_the_seed():
    subset = label_subset(KEYS, 0.1, 1)
    shuffled = label_subset(KEYS[::-1], 0.1, 1)
    assert set(shuffled.keys) == set(subset.keys) and shuffled.hash == subset.hash
    assert label_subset(KEYS, 0.1, 2).hash != subset.hash
    assert [KEYS.index(key) for key in subset.keys] == sorted(KEYS.index(key) for key in subset.keys)


def test_two_seeds_share_about_what_chance_gives():
    shared = set(label_subset(KEYS, 0.2, 1).keys) & set(label_subset(KEYS, 0.2, 2).keys)
    assert 0.7 < len(shared) / (0.04 * len(KEYS)) < 1.3


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1])
def test_fraction_out_of_range(fraction: float):
    with pytest.raises(ValueError, match=r"labels\.fraction"):
        label_subset(KEYS, fraction, 0)


def test_repeated_or_no_keys():
    with pytest.raises(ValueError, match="1 of them repeated"):
        label_subset(["a", "a"], 0.5, 0)
    with pytest.raises(ValueError, match="0 keys"):
        label_subset([], 0.5, 0)


def test_file_round_trip_and_edited_file(tmp_path: Path):
    subset = label_subset(KEYS, 0.05, 3)
    path = tmp_path / "lists" / "five_percent.json"
    subset.save(path)
    assert Subset.load(path) == subset
    assert list(path.parent.iterdir()) == [path]

    content = json.loads(path.read_text())
    content["keys"].append(KEYS[0])
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="edited"):
        Subset.load(path)
    with pytest.raises(FileNotFoundError, match="no label subset"):
        Subset.load(tmp_path / "none.json")


def _named(num_sequences: int, frames: int) -> tuple[list[str], dict[str, str]]:
    keys = [f"log/{s:03d}/{f:04d}" for s in range(num_sequences) for f in range(frames)]
    return keys, sequences_of(keys)


@given(seed=st.integers(0, 1000), small=st.floats(0.001, 1), large=st.floats(0.001, 1))
def test_whole_sequences_are_drawn_and_nested(seed: int, small: float, large: float):
    keys, sequences = _named(12, 3)
    few, many = (label_subset(keys, fraction, seed, sequences) for fraction in sorted((small, large)))
    assert set(few.keys) <= set(many.keys) and few.sequences == many.sequences[: len(few.sequences)]
    for subset in (few, many):
        assert len(subset.keys) == 3 * len(subset.sequences) == 3 * max(1, round(subset.fraction * 12))
        assert {sequences[key] for key in subset.keys} == set(subset.sequences)


def test_frames_and_sequences_are_different_subsets():
    keys, sequences = _named(20, 5)
    assert label_subset(keys, 0.2, 0).hash != label_subset(keys, 0.2, 0, sequences).hash


def test_sequence_round_trip(tmp_path: Path):
    keys, sequences = _named(10, 2)
    subset = label_subset(keys, 0.3, 1, sequences)
    subset.save(tmp_path / "list.json")
    assert Subset.load(tmp_path / "list.json") == subset
    assert subset.identity() == {
        "fraction": 0.3,
        "seed": 1,
        "mode": "sequence",
        "hash": subset.hash,
        "num_sequences": 3,
    }


def test_hash_is_logged(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        part = LabelledSubset(FakeSamples(40, "labelled"), fraction=0.25, seed=1)
    assert part.subset.hash in caplog.text and "10 of 40 sweeps" in caplog.text


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"labels\.mode must be frame or sequence, got 'scene'"):
        LabelledSubset(FakeSamples(4, "labelled"), mode="scene")


def test_dataset_of_a_subset():
    whole = FakeSamples(40, "labelled")
    part = LabelledSubset(whole, fraction=0.25, seed=1)
    assert isinstance(part, LabelledDataset)
    assert len(part) == len(part.keys) == 10
    assert [part[i].key for i in range(10)] == part.keys == [whole.keys[i] for i in part.indices]
    assert part.provenance()["labels"]["hash"] == part.subset.hash
    assert part.provenance()["num_samples"] == 10
