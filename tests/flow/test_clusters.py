import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from equilidar.flow.clusters import ClusterSettings, cluster_labels

SETTINGS = ClusterSettings(cell=0.1, link=0.4, link_growth=0.01, rise=2.0, min_points=1)


def ball(center: tuple[float, float, float], num: int = 60, radius: float = 0.4, seed: int = 0) -> torch.Tensor:
    offset = torch.rand(num, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return torch.tensor(center) + radius * offset


def test_objects_apart_are_told_apart_and_small_ones_are_none():
    cloud = torch.cat([ball((5, 0, 0)), ball((8, 0, 0)), ball((5, 0, 4)), ball((-20, 3, 0), 3)])
    labels = cluster_labels(cloud, torch.tensor([0, len(cloud)]))
    sizes = labels[labels >= 0].bincount().tolist()
    assert sizes == [60, 60, 60] and labels[-3:].eq(-1).all()
    assert all(len(set(labels[start : start + 60].tolist())) == 1 for start in (0, 60, 120))


def test_the_link_grows_with_distance():
    near, far = torch.tensor([[5.0, 0, 0], [5.0, 0.7, 0]]), torch.tensor([[60.0, 0, 0], [60.0, 0.7, 0]])
    options = ClusterSettings(min_points=1)
    assert cluster_labels(near, torch.tensor([0, 2]), settings=options).tolist() == [0, 1]
    assert cluster_labels(far, torch.tensor([0, 2]), settings=options).tolist() == [0, 0]


@given(st.integers(0, 2**31), st.integers(2, 120))
@settings(max_examples=40, deadline=None)
def test_labels_are_the_components_of_the_graph_of_links(seed: int, num: int):
    # Points in the middle of cells of their own, so that cells are points.
    rng = np.random.default_rng(seed)
    cells = np.unique(rng.integers(-40, 40, (num, 3)) * [1, 1, 0] + [0, 0, 1], axis=0)
    points = ((cells + 0.5) * [0.1, 0.1, 0.2]).astype(np.float32)
    delta = points[:, None].astype(np.float64) - points[None]
    limit = SETTINGS.link + SETTINGS.link_growth * np.hypot(points[:, 0], points[:, 1])[:, None]
    # A link is the first one's, in the order of cells; leave out cases that rounding decides.
    flat = np.hypot(delta[..., 0], delta[..., 1])
    if (np.abs(flat - limit) < 1e-3).any():
        return
    linked = np.triu(flat <= limit)
    _, expected = connected_components(coo_matrix(linked), directed=False)
    labels = cluster_labels(torch.from_numpy(points), torch.tensor([0, len(points)]), settings=SETTINGS).numpy()
    assert (labels >= 0).all()
    assert ((labels[:, None] == labels) == (expected[:, None] == expected)).all()


def test_items_share_no_cluster_and_the_mask_and_odd_points_are_left_out():
    cloud = torch.cat([ball((5, 0, 0)), ball((5, 0, 0)), torch.full((1, 3), float("nan")), ball((400, 0, 0))])
    mask = torch.arange(len(cloud)) >= 10
    labels = cluster_labels(cloud, torch.tensor([0, 60, 60, len(cloud)]), mask)
    assert labels[:10].eq(-1).all() and labels[10:60].eq(0).all() and labels[60:120].eq(1).all()
    assert labels[120:].eq(-1).all()
    assert cluster_labels(torch.zeros(0, 3), torch.tensor([0, 0])).shape == (0,)


@pytest.mark.parametrize("arguments", [{"cell": 0.0}, {"link_growth": -1.0}, {"reach": 1000.0}])
def test_impossible_settings_are_refused(arguments: dict):
    with pytest.raises(ValueError, match="cluster"):
        ClusterSettings(**arguments)
