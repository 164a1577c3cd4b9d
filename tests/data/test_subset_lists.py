"""Published lists: they are what the draw gives, and another draw, index or file is an error that names both hashes."""

import json
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from equilidar.data import subset_lists
from equilidar.data.sequences import sequences_of
from equilidar.data.subset_draw import drawn_order, label_subset
from equilidar.data.subset_lists import FRACTIONS, SEEDS, SubsetLists, format_lists, published, write_lists, write_text
from equilidar.data.subsets import LabelledSubset
from tests.data.fake_data import FakeSamples

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def _keys(num_sequences: int = 10, frames: int = 4, name: str = "log") -> list[str]:
    return [f"{name}/{s:03d}/{f:04d}" for s in range(num_sequences) for f in range(frames)]


class Log(FakeSamples):
    """Sweeps with sequences in their keys."""

    @property
    def keys(self) -> list[str]:
        return _keys(self.num // 4)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package's own lists."""
    monkeypatch.setattr(subset_lists, "FOLDER", tmp_path / "shelf")
    return tmp_path / "shelf"


@pytest.mark.parametrize("name", sorted(published()))
def test_published_lists_are_nested_and_whole(name: str):
    lists = SubsetLists.load(published()[name])
    assert lists.file_name == f"{name}.json"
    hashes = lists.hashes or lists.sequence_hashes
    assert {int(seed) for seed in hashes} == set(SEEDS)
    for by_fraction in hashes.values():
        assert [float(fraction) for fraction in by_fraction] == list(FRACTIONS)
    for names in lists.order.values():
        assert len(names) == len(set(names)) == round(0.5 * lists.num)
    assert published()[name].stat().st_size < 50_000


@pytest.mark.parametrize("name", ["simulator_labelled", "quickstart"])
@pytest.mark.parametrize("mode", ["frame", "sequence"])
def test_simulator_lists_are_what_the_draw_gives(name: str, mode: str):
    settings = OmegaConf.load(CONFIGS / "dataset" / "simulator_labelled.yaml")
    if name == "quickstart":
        own = OmegaConf.load(CONFIGS / "experiment" / "quickstart_finetune.yaml").dataset
        settings = OmegaConf.merge(settings, {key: value for key, value in own.items() if key != "class_names"})
    dataset = instantiate(settings, _convert_="all")
    sequences = sequences_of(dataset.keys) if mode == "sequence" else None
    assert SubsetLists.make(name, dataset.keys, sequences) == SubsetLists.load(published()[f"{name}_{mode}"])
    part = LabelledSubset(dataset, 0.1, 2, mode=mode)
    assert part.listed == f"{name}_{mode}" and part.provenance()["labels"]["list"] == part.listed


def test_sample_kitti_list_is_what_the_draw_gives_from_the_official_list(samples: Path):
    path = samples / "kitti_object" / "ImageSets_official" / "train.txt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    keys = [f"kitti_object/training/{frame}" for frame in path.read_text().split()]
    lists = SubsetLists.load(published()["kitti_train_frame"])
    assert lists.num == len(keys) == 3712
    assert SubsetLists.make("kitti_train", keys) == lists
    sizes = [len(label_subset(keys, fraction, 0).keys) for fraction in FRACTIONS]
    assert sizes == [37, 74, 186, 371, 742, 1856]


def test_another_order_of_drawing_is_an_error_that_names_both_hashes(shelf: Path):
    keys = _keys()
    lists = SubsetLists.make("log_train", keys)
    wrong = {**lists.hashes, "1": {**lists.hashes["1"], "0.5": "0123456789abcdef"}}
    write_lists(SubsetLists(lists.name, "frame", lists.num, lists.index_hash, wrong), shelf)
    right = label_subset(keys, 0.5, 1).hash
    assert LabelledSubset(Log(40, "labelled"), 0.2, 1).listed == "log_train_frame"
    with pytest.raises(ValueError, match=rf"{right}, log_train_frame.json expects 0123456789abcdef"):
        LabelledSubset(Log(40, "labelled"), 0.5, 1)


def test_another_index_is_no_match_by_itself_and_an_error_on_demand(shelf: Path):
    write_lists(SubsetLists.make("log_train", _keys()), shelf)
    assert LabelledSubset(Log(36, "labelled"), 0.5).listed is None
    for lists in ("log_train", "log_train_frame", shelf / "log_train_frame.json"):
        with pytest.raises(ValueError, match=r"40 frames with index hash \w{16}, this dataset has 36 frames"):
            LabelledSubset(Log(36, "labelled"), 0.5, lists=lists)
    with pytest.raises(FileNotFoundError, match="published are: log_train_frame"):
        LabelledSubset(Log(36, "labelled"), 0.5, lists="nonesuch")


def test_lists_of_sequence_names_alone_are_compared_by_names(shelf: Path):
    names = {f"{s:03d}": f"{s:03d}" for s in range(10)}
    write_lists(SubsetLists.make("log_train", [], names, with_order=False), shelf)
    assert LabelledSubset(Log(40, "labelled"), 0.2, 0, mode="sequence").listed == "log_train_sequence"
    assert LabelledSubset(Log(40, "labelled"), 0.2, 0).listed is None
    lists = SubsetLists.load(shelf / "log_train_sequence.json")
    lists.sequence_hashes["0"]["0.2"] = "0123456789abcdef"
    lists.save(shelf / "log_train_sequence.json")
    with pytest.raises(ValueError, match="expects 0123456789abcdef"):
        LabelledSubset(Log(40, "labelled"), 0.2, 0, mode="sequence")


def test_lists_recorded_from_one_copy_are_expected_of_the_next(shelf: Path, tmp_path: Path):
    first = Log(40, "labelled")
    recorded = write_lists(SubsetLists.make("log_train", first.keys, with_order=False), tmp_path)
    assert LabelledSubset(first, 0.2, 1).listed is None  # nothing is published of this index
    drawn = LabelledSubset(first, 0.2, 1, lists=recorded)
    assert drawn.listed == "log_train_frame" and drawn.provenance()["labels"]["list"] == "log_train_frame"
    assert SubsetLists.load(recorded).hashes["1"]["0.2"] == drawn.subset.hash
    with pytest.raises(ValueError, match=r"40 frames with index hash .* this dataset has 36 frames"):
        LabelledSubset(Log(36, "labelled"), 0.2, 1, lists=recorded)


@pytest.mark.parametrize(("name", "num"), [("nuscenes", 700), ("waymo", 798), ("argoverse2", 700), ("once", 6)])
def test_lists_of_public_splits_are_of_all_their_sequences(name: str, num: int):
    lists = SubsetLists.load(published()[f"{name}_train_sequence"])
    assert (lists.num, lists.mode, lists.order) == (num, "sequence", {})


def test_seeds_and_fractions_that_are_not_listed_are_drawn_the_same_way(shelf: Path):
    write_lists(SubsetLists.make("log_train", _keys()), shelf)
    assert LabelledSubset(Log(40, "labelled"), 0.3, 77).listed == "log_train_frame"
    assert drawn_order(_keys(), 3) == drawn_order(_keys()[::-1], 3)


def test_lists_are_not_replaced_by_others(shelf: Path, tmp_path: Path):
    write_lists(SubsetLists.make("log_train", _keys()), shelf)
    write_lists(SubsetLists.make("log_train", _keys()), tmp_path)
    with pytest.raises(ValueError, match=r"40 frames with index hash .* these are 36"):
        write_lists(SubsetLists.make("log_train", _keys(9)), tmp_path / "elsewhere")
    write_lists(SubsetLists.make("log_train", _keys(9)), tmp_path / "elsewhere", force=True)
    changed = SubsetLists.make("log_train", _keys())
    changed.hashes["0"]["0.1"] = "0123456789abcdef"
    with pytest.raises(ValueError, match=r"expects hash .* at fraction 0.1, seed 0, computed was 0123456789abcdef"):
        write_lists(changed, tmp_path)


def test_edited_or_foreign_files(tmp_path: Path):
    path = write_lists(SubsetLists.make("log_train", _keys()), tmp_path)
    content = json.loads(path.read_text())
    assert content["prefix"] == "log/"
    content["order"]["0"] = " ".join(sorted(content["order"]["0"].split()))
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="the file was edited"):
        SubsetLists.load(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="holds no lists of label subsets"):
        SubsetLists.load(path)


def test_text_files_and_table(tmp_path: Path):
    keys = _keys()
    write_text("log_train_frame", keys, None, tmp_path, fractions=[0.1, 0.5], seeds=[0, 1])
    assert len(list(tmp_path.iterdir())) == 4
    listed = (tmp_path / "log_train_frame_0.1_seed1.txt").read_text().split()
    assert listed == list(label_subset(keys, 0.1, 1).keys)
    table = format_lists(SubsetLists.make("log_train", keys)).splitlines()
    assert table[0].startswith("log_train: 40 frames") and len(table) == 2 + len(FRACTIONS)
