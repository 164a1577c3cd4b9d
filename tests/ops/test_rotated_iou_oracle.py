"""Overlaps against reference pairs, through kernels and references."""

import numpy as np
import pytest
import torch

from equilidar.ops import rotated_iou
from equilidar.ops.rotated_iou import bev_iou, bev_iou_pairs, iou_3d, iou_3d_pairs
from tests.ops.implementations import (
    IMPLEMENTATIONS,
    use,
)


def iou_files(oracles):
    found = sorted((oracles / "rotated_boxes").glob("iou_*.npz"))
    if not found:
        pytest.skip("no iou_*.npz")
    return found


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_overlaps_reproduce_oracle(oracles, dtype, implementation, monkeypatch):
    use(implementation, rotated_iou, monkeypatch)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-6
    for path in iou_files(oracles):
        data = np.load(path)
        a, b = (torch.from_numpy(data[f"boxes_{name}"]).to(dtype) for name in "ab")
        for function, expected in ((bev_iou_pairs, data["iou_bev"]), (iou_3d_pairs, data["iou_3d"])):
            error = np.abs(function(a, b).double().numpy() - expected)
            kinds = [str(data["kind_names"][kind]) for kind in data["kind"][error > tolerance]]
            assert not kinds, f"{path.name}: {function.__name__} is off by {error.max():.2e}, kinds {set(kinds)}"
        together = a[:, 3:5].double().prod(1) + b[:, 3:5].double().prod(1)
        iou = bev_iou_pairs(a.double(), b.double())
        np.testing.assert_allclose(iou / (1 + iou) * together, data["inter_area"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_matrix_reproduces_oracle(oracles, implementation, monkeypatch):
    use(implementation, rotated_iou, monkeypatch)
    for path in iou_files(oracles):
        data = np.load(path)
        a, b = (torch.from_numpy(data[f"boxes_{name}"][:500]).double() for name in "ab")
        np.testing.assert_allclose(bev_iou(a, b).diagonal(), data["iou_bev"][:500], rtol=0, atol=1e-9)
        np.testing.assert_allclose(iou_3d(a, b).diagonal(), data["iou_3d"][:500], rtol=0, atol=1e-9)
