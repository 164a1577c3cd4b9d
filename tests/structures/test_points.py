import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilidar.structures import PointCloudBatch
from equilidar.structures.offsets import after_mask, from_lengths, to_batch_index

from .strategies import assert_same, clouds, lengths, seeds, similarities


@given(lengths, seeds)
def test_offsets_say_which_rows_are_whose(counts, seed):
    offsets = from_lengths(counts)
    item = to_batch_index(offsets, sum(counts))
    assert item.tolist() == [b for b, n in enumerate(counts) for _ in range(n)]
    assert torch.equal(from_lengths(torch.tensor(counts)), offsets)
    mask = torch.rand(sum(counts), generator=torch.Generator().manual_seed(seed)) < 0.5
    assert torch.equal(to_batch_index(after_mask(offsets, mask), int(mask.sum())), item[mask])


def test_offsets_of_nothing():
    assert from_lengths([]).tolist() == [0]
    assert to_batch_index(from_lengths([0, 0]), 0).tolist() == []


@given(st.lists(clouds(), min_size=1, max_size=4))
def test_collate_and_split_round_trip(batches):
    joined = PointCloudBatch.collate(batches)
    assert joined.batch_size == sum(batch.batch_size for batch in batches)
    parts = joined.split()
    assert all(part.batch_size == 1 for part in parts)
    assert [len(part.xyz) for part in parts] == [n for batch in batches for n in batch.offsets.diff().tolist()]
    assert_same(PointCloudBatch.collate(parts), joined)
    assert_same(PointCloudBatch.collate(batches[0].split()), batches[0])


@given(clouds(), seeds)
def test_selection_keeps_items_apart(cloud, seed):
    mask = torch.rand(len(cloud.xyz), generator=torch.Generator().manual_seed(seed)) < 0.5
    kept = cloud.select(mask)
    assert torch.equal(kept.xyz, cloud.xyz[mask]) and torch.equal(kept.features, cloud.features[mask])
    assert torch.equal(kept.batch_index, cloud.batch_index[mask]) and kept.batch_size == cloud.batch_size


@given(st.data(), lengths)
def test_each_item_moves_by_its_own_map(data, counts):
    cloud, transform = data.draw(clouds(counts)), data.draw(similarities(len(counts)))
    moved = cloud.transformed(transform)
    assert torch.equal(moved.features, cloud.features)
    for item, (part, expected) in enumerate(zip(moved.split(), cloud.split(), strict=True)):
        assert torch.equal(part.xyz, expected.transformed(transform[[item]]).xyz)


def cloud(channels=("intensity",), columns=1):
    return PointCloudBatch(torch.zeros(2, 3), torch.zeros(2, columns), torch.tensor([0, 2]), channels)


def test_errors_say_what_was_got():
    with pytest.raises(ValueError, match=r"2 columns for channels \('intensity',\)"):
        cloud(columns=2)
    with pytest.raises(ValueError, match=r"\('time',\) beside \('intensity',\)"):
        PointCloudBatch.collate([cloud(), cloud(("time",))])
    with pytest.raises(ValueError, match="empty list"):
        PointCloudBatch.collate([])
    with pytest.raises(ValueError, match=r"points\.offsets must be a 1-d int64 tensor"):
        PointCloudBatch(torch.zeros(0, 3), torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64), ())
