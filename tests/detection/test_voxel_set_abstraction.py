import math

import numpy as np
import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.detection.set_abstraction import Ball
from equilidar.detection.voxel_set_abstraction import VoxelSetAbstraction, bilinear_features, choose_keypoints
from equilidar.structures import BEVMap, GridSpec, PointCloudBatch

GRID = GridSpec.from_range([0, -3.2, -3, 6.4, 3.2, 1], [0.1, 0.1, 0.1])


def cloud(lengths: tuple[int, ...], seed: int = 0) -> PointCloudBatch:
    generator = torch.Generator().manual_seed(seed)
    xyz = torch.rand(sum(lengths), 3, generator=generator) * torch.tensor([6.3, 6.3, 3.8]) - torch.tensor(
        [0, 3.15, 2.9]
    )
    return PointCloudBatch(
        xyz, torch.rand(len(xyz), 1, generator=generator), torch.tensor([0, *lengths]).cumsum(0), ("intensity",)
    )


def farthest(xyz: np.ndarray, num: int) -> list[int]:
    """Point by point; where there are fewer than asked for, all of them again and again."""
    chosen = [0]
    while len(chosen) < min(num, len(xyz)):
        distance = [min(np.linalg.norm(point - xyz[c]) for c in chosen) for point in xyz]
        chosen.append(int(np.argmax(distance)))
    return [chosen[place % len(chosen)] for place in range(num)]


def test_keypoints_are_spread_and_repeat_where_points_are_few() -> None:
    points = cloud((40, 0, 7))
    xyz, offsets = choose_keypoints(points, 12)
    assert offsets.tolist() == [0, 12, 12, 24]
    first, _, third = (part.xyz.numpy().astype(np.float64) for part in points.split())
    expected = np.concatenate([first[farthest(first, 12)], third[farthest(third, 12)]])
    np.testing.assert_allclose(xyz.numpy(), expected, atol=1e-6)


def read_map(features: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear between cells' lower borders, as OpenPCDet's bilinear_interpolate_torch reads a (C, H, W) map."""
    _, height, width = features.shape
    left, low = min(max(math.floor(x), 0), width - 1), min(max(math.floor(y), 0), height - 1)
    right, high = min(left + 1, width - 1), min(low + 1, height - 1)
    return (
        features[:, low, left] * (right - x) * (high - y)
        + features[:, high, left] * (right - x) * (y - low)
        + features[:, low, right] * (x - left) * (high - y)
        + features[:, high, right] * (x - left) * (y - low)
    )


def test_the_map_is_read_as_openpcdet_reads_it() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 5, 8, 8, dtype=torch.float64, requires_grad=True)
    bev = BEVMap(maps, GRID, (8, 8))
    xyz = cloud((30, 30)).xyz.double()
    item = torch.arange(2).repeat_interleave(30)
    got = bilinear_features(bev, xyz, item)
    for row in range(60):
        x, y = float(xyz[row, 0]) / 0.8, (float(xyz[row, 1]) + 3.2) / 0.8
        np.testing.assert_allclose(got[row].detach(), read_map(maps[item[row]].detach().numpy(), x, y), atol=1e-9)
    # In the last row and column of cells OpenPCDet's weights cancel.
    beyond = torch.tensor([[6.2, 0.0, 0.0], [1.0, 3.1, 0.0]], dtype=torch.float64)
    assert bilinear_features(bev, beyond, torch.tensor([0, 1])).abs().max() < 1e-9

    def read(values: torch.Tensor) -> torch.Tensor:
        return bilinear_features(BEVMap(values, GRID, (8, 8)), xyz, item)

    assert torch.autograd.gradcheck(read, (maps,))


def extractor(num_keypoints: int = 16) -> tuple[VoxelBackBone8x, VoxelSetAbstraction]:
    torch.manual_seed(0)
    backbone = VoxelBackBone8x(GRID, 4, width=0.25)
    stages = {"conv1": [Ball(0.4, 4, (5,))], "conv3": [Ball(0.8, 4, (6,)), Ball(1.6, 4, (7,))]}
    raw = [Ball(0.5, 4, (3,))]
    pfe = VoxelSetAbstraction(
        GRID, backbone.feature_info, 1, raw_points=raw, stages=stages, num_keypoints=num_keypoints, out_channels=9
    )
    return backbone, pfe


def test_features_stand_in_openpcdets_order() -> None:
    """Map, raw points, stages; each part is what the part's own module gives."""
    backbone, pfe = extractor()
    backbone.eval(), pfe.eval()
    points = cloud((200, 150))
    features = backbone.encode(points)
    bev = features.bev_map()
    keypoints = pfe(points, features, bev)
    xyz, offsets = choose_keypoints(points, 16)
    assert torch.equal(keypoints.xyz, xyz) and torch.equal(keypoints.offsets, offsets)
    item = torch.arange(2).repeat_interleave(16)
    parts = [
        bilinear_features(bev, xyz, item),
        pfe.SA_rawpoints(points.xyz, points.offsets, points.features, xyz, offsets),
    ]
    for name, pool in zip(("conv1", "conv3"), pfe.SA_layers, strict=True):
        voxels = features.stages[name]
        counts = [int((voxels.coords[:, 0] == sweep).sum()) for sweep in range(2)]
        of_sweep = torch.tensor([0, counts[0], sum(counts)])
        parts.append(pool(voxels.centers(), of_sweep, voxels.features, xyz, offsets))
    gathered = torch.cat(parts, 1)
    torch.testing.assert_close(keypoints.gathered, gathered)
    assert pfe.gathered_channels == gathered.shape[1] == backbone.feature_info.bev_channels + 3 + 5 + 6 + 7
    torch.testing.assert_close(keypoints.features, pfe.vsa_point_feature_fusion(gathered))


def test_points_beyond_the_map_are_no_keypoints_but_any_height_will_do() -> None:
    backbone, pfe = extractor(num_keypoints=50)
    points = cloud((100,))
    points.xyz[:20, 0] += 50
    points.xyz[20:40, 2] += 30
    features = backbone.encode(points)
    keypoints = pfe(points, features, features.bev_map())
    assert keypoints.xyz[:, 0].max() < 6.4 and keypoints.xyz[:, 2].max() > 20


@pytest.mark.parametrize("lengths", [(0, 100), (0, 0), (1, 1)])
def test_sweeps_without_points_are_trained_through(lengths: tuple[int, int]) -> None:
    backbone, pfe = extractor()
    points = cloud(lengths)
    features = backbone.encode(points)
    keypoints = pfe(points, features, features.bev_map())
    assert keypoints.offsets.diff().tolist() == [16 if length else 0 for length in lengths]
    keypoints.features.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in pfe.parameters())


def test_a_stage_that_is_not_there_is_named() -> None:
    backbone, _ = extractor()
    with pytest.raises(ValueError, match="no stage conv9; it has conv1, conv2"):
        VoxelSetAbstraction(
            GRID, backbone.feature_info, 1, raw_points=[Ball(0.4, 4, (3,))], stages={"conv9": [Ball(0.4, 4, (3,))]}
        )
    with pytest.raises(ValueError, match="num_keypoints must be at least 1"):
        VoxelSetAbstraction(GRID, backbone.feature_info, 1, raw_points=[Ball(0.4, 4, (3,))], stages={}, num_keypoints=0)
