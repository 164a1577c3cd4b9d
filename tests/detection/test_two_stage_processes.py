"""Second stages over processes: two gloo processes with unequal shares against one with everything."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from equilidar.detection.point_head import PointLoss
from equilidar.detection.roi_loss import RoILoss, RoIPredictions
from equilidar.detection.roi_targets import RoITargets
from equilidar.detection.voxel_pooling import VoxelPooling
from equilidar.structures import Boxes3D, SparseVoxels

from .test_voxel_pooling import GRID, SCALES, SHAPE, STRIDE, places, voxels

Result = dict[str, torch.Tensor]


def sweeps(*chosen: int) -> tuple[SparseVoxels, torch.Tensor, torch.Tensor]:
    """Some of two sweeps' voxels, and points in them."""
    cells, (points, item) = voxels(0), places(0)
    rows = torch.cat([(cells.coords[:, 0] == sweep).nonzero()[:, 0] for sweep in chosen])
    which = torch.cat([(item == sweep).nonzero()[:, 0] for sweep in chosen])
    first = min(chosen)
    coords = cells.coords[rows] - torch.tensor([first, 0, 0, 0]).int()
    return (
        SparseVoxels(coords, cells.features[rows], GRID, SHAPE, STRIDE, len(chosen)),
        points[which],
        item[which] - first,
    )


def run(*chosen: int) -> Result:
    """Pool in training and sum up; losses of proposals and keypoints of the chosen sweeps."""
    torch.manual_seed(0)
    pooling = VoxelPooling(8, SCALES)
    cells, points, item = sweeps(*chosen)
    pooled = pooling(cells, points, item)
    (pooled**2).sum().backward()
    gradient = pooling.mlps_pos[0][0].weight.grad
    norm = pooling.mlps_pos[1][1]

    generator = torch.Generator().manual_seed(1)
    rois = torch.rand(2, 6, 7, generator=generator) + 0.5
    boxes, foreground = rois + 0.1, torch.tensor([[1, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0]], dtype=torch.bool)
    logits, scores = torch.randn(2, 6, generator=generator), torch.rand(2, 6, generator=generator)
    keep = list(chosen)
    targets = RoITargets(
        rois[keep], torch.where(foreground[..., None], boxes, rois)[keep], foreground[keep], scores[keep]
    )
    said = RoIPredictions(logits[keep], torch.zeros(len(keep), 6, 7))
    terms = RoILoss()(said, targets).terms

    xyz, of_points = torch.rand(2, 20, 3, generator=generator) * 4, torch.randn(2, 20, generator=generator)
    row = torch.tensor([1.0, 1, 1, 2, 1.5, 2, 0.3])
    box = Boxes3D.make(row[None, :3], row[None, 3:6], row[None, 6])
    labels = Boxes3D.collate([Boxes3D.collate([box]) if sweep == 0 else Boxes3D.empty() for sweep in keep])
    offsets = torch.arange(len(keep) + 1) * 20
    loss = PointLoss()(of_points[keep].flatten(), xyz[keep].flatten(0, 1), offsets, labels)
    return {**terms, **loss.terms, "mean": norm.running_mean, "var": norm.running_var, "gradient": gradient}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.save({name: value.detach() for name, value in run(rank).items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.timeout(300)
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    mp.start_processes(worker, (str(tmp_path),), nprocs=2, start_method="spawn")  # pyright: ignore[reportPrivateImportUsage]
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    one = run(0, 1)
    for name in ("mean", "var"):
        torch.testing.assert_close(ours[name], one[name].detach())
        assert torch.equal(ours[name], theirs[name])
    # What DDP makes of losses and gradients: the mean over processes. The sum above is over all rows.
    torch.testing.assert_close(ours["gradient"] + theirs["gradient"], one["gradient"], rtol=1e-4, atol=1e-4)
    for name in ("roi_classification", "roi_box", "roi_corner", "points"):
        torch.testing.assert_close((ours[name] + theirs[name]) / 2, one[name].detach(), msg=name)
