import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.objectives.cells import as_columns, cells_of_points, column_stride
from equilidar.objectives.sampling import sample_matches
from equilidar.structures import offsets as batch_offsets

from .toy import GRID, encode_by, place_code, views


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4, unique=True), st.integers(1, 40), st.booleans())
@settings(max_examples=25, deadline=None)
def test_each_cell_is_chosen_at_most_once_in_either_view(seeds: list[int], max_pairs: int, columns: bool):
    pair = views(*seeds)
    stride = column_stride(GRID, (4, 4)) if columns else (4, 4, 4)
    matches, offsets = sample_matches(pair, GRID, stride, max_pairs)
    item = batch_offsets.to_batch_index(offsets, len(matches))
    known = {tuple(row) for row in pair.matches.tolist()}
    assert {tuple(row) for row in matches.tolist()} <= known
    for column, view in enumerate((pair.a, pair.b)):
        rows = matches[:, column]
        assert view.points.batch_index[rows].equal(item)
        cells = cells_of_points(GRID, stride, view.points.xyz[rows], item)
        assert len(cells.unique(dim=0)) == len(cells)
    assert (offsets.diff() <= max_pairs).all()


def test_as_many_as_asked_for_are_chosen():
    pair = views(1, 2, 3)
    for wanted in (1, 7, 100):
        assert sample_matches(pair, GRID, None, wanted)[1].diff().tolist() == [wanted] * 3
    every, offsets = sample_matches(pair, GRID, None, 10**6)
    assert every.equal(pair.matches) and offsets.equal(pair.match_offsets)


def test_the_choice_depends_on_the_seed_and_not_on_the_batch():
    together, alone, other = views(1, 2), views(2), views(2)
    other.seeds = other.seeds + 1
    first = sample_matches(together, GRID, (4, 4, 4), 20)
    offset = [int(view.points.offsets[1]) for view in (together.a, together.b)]
    mine = first[0][first[1][1] :] - torch.tensor(offset)
    assert mine.equal(sample_matches(alone, GRID, (4, 4, 4), 20)[0])
    assert not mine.equal(sample_matches(other, GRID, (4, 4, 4), 20)[0])


def test_every_match_is_chosen_equally_often():
    pair = views(1)
    counts = torch.zeros(len(pair.matches))
    for seed in range(400):
        pair.seeds = torch.tensor([seed])
        counts += (pair.matches[:, None] == sample_matches(pair, GRID, None, 30)[0][None]).all(2).any(1)
    expected = 400 * 30 / len(counts)
    assert counts.mean() == pytest.approx(expected) and counts.max() < 2 * expected and counts.min() > expected / 3


def test_columns_are_cells_as_high_as_the_grid():
    points = views(1, 2).a.points
    encoded = encode_by(lambda _, row, centers: place_code(centers), points)
    columns = as_columns(encoded.bev_cells())
    mine = cells_of_points(GRID, columns.stride, points.xyz, points.batch_index).unique(dim=0)
    assert mine.equal(columns.coords.long())
    torch.testing.assert_close(columns.centers()[:, 2], torch.zeros(len(columns.coords)))
