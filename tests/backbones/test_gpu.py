"""The backbone on CUDA, by each engine that is there, against the CPU's reference."""

import pytest
import torch

from equilidar.backbones import VoxelBackBone8x
from equilidar.ops.sparse_engine_spconv import has_cuda
from equilidar.ops.voxelize import voxelize_mean
from equilidar.structures import GridSpec, PointCloudBatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GRID = GridSpec((0.0, -6.4, -3.0), (9.6, 6.4, 1.0), (0.1, 0.1, 0.1))
ENGINES = ["reference", "auto", pytest.param("spconv", marks=pytest.mark.skipif(not has_cuda(), reason="CPU spconv"))]


def run(engine: str, device: str, autocast: torch.dtype | None = None):
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(3000, 3, generator=generator) * torch.tensor([9.6, 12.8, 0.2]) - torch.tensor([0.0, 6.4, 1.0])
    points = PointCloudBatch(
        xyz, torch.rand(3000, 1, generator=generator), torch.tensor([0, 1000, 1000, 3000]), ("intensity",)
    )
    torch.manual_seed(0)
    backbone = VoxelBackBone8x(GRID, 4, engine=engine).to(device)
    voxels = voxelize_mean(points.to(device), GRID)
    with torch.autocast(device, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        features = backbone(voxels)
    weight = torch.randn(features.last.features.shape, generator=generator).to(device)
    (features.last.features.float() * weight).sum().backward()
    gradients = {name: parameter.grad.cpu() for name, parameter in backbone.named_parameters()}
    stages = {name: (stage.coords.cpu(), stage.features.float().cpu()) for name, stage in features.stages.items()}
    return stages, gradients


@pytest.mark.parametrize("engine", ENGINES)
def test_cuda_agrees_with_cpu(engine, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    stages, gradients = run("reference", "cpu")
    found_stages, found_gradients = run(engine, "cuda")
    for name, (coords, features) in stages.items():
        assert torch.equal(found_stages[name][0], coords), name
        torch.testing.assert_close(found_stages[name][1], features, rtol=1e-2, atol=1e-3)
    for name, gradient in gradients.items():
        assert (found_gradients[name] - gradient).norm() <= 2e-2 * gradient.norm(), name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_mixed_precision_is_close(engine, dtype):
    expected, _ = run("reference", "cpu")
    found, gradients = run(engine, "cuda", dtype)
    error = (found["out"][1] - expected["out"][1]).norm() / expected["out"][1].norm()
    assert error < 0.1, float(error)
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients.values())
