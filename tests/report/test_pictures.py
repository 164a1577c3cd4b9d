"""Pictures show what is where; counts are right."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from equilidar.report.pictures import range_image, save_picture, sweep_picture
from equilidar.report.sweep_counts import describe
from equilidar.structures import Boxes3D, SensorContract, Sweep

CONTRACT = SensorContract(("intensity",), (1.0,), "sensor")


def make_sweep(xyz: torch.Tensor) -> Sweep:
    return Sweep(xyz, torch.full((len(xyz), 1), 0.3), CONTRACT, "made/0/0", 0.0)


def pixels(figure: Figure) -> np.ndarray:
    """Return the image of the first axes."""
    return np.asarray(figure.axes[0].images[0].get_array())


def lit(image: np.ndarray) -> np.ndarray:
    """Return the rows and columns of the pixels that show a point."""
    return np.argwhere(image.max(2) > 0.2)


def test_from_above_x_points_up_and_y_to_the_left() -> None:
    figure = sweep_picture(make_sweep(torch.tensor([[10.0, 0.0, 0.0]])), radius=20.0)
    (row, column), *more = lit(pixels(figure))
    assert not more
    assert (row / 1200, column / 1200) == pytest.approx((0.25, 0.5), abs=0.002)
    figure = sweep_picture(make_sweep(torch.tensor([[0.0, 10.0, 0.0]])), radius=20.0)
    (row, column), *more = lit(pixels(figure))
    assert not more
    assert (row / 1200, column / 1200) == pytest.approx((0.5, 0.25), abs=0.002)


def test_points_beyond_the_radius_are_left_out() -> None:
    figure = sweep_picture(make_sweep(torch.tensor([[30.0, 0.0, 0.0], [0.0, -21.0, 0.0]])), radius=20.0)
    assert len(lit(pixels(figure))) == 0


def test_range_image_keeps_the_nearest_and_shows_the_left_at_the_left() -> None:
    xyz = np.array([[10.0, 0.0, -1.0], [20.0, 0.0, -2.0], [0.0, 5.0, 0.5], [0.0, -5.0, 0.5]])
    image, (low, high) = range_image(xyz, rows=10, columns=360)
    assert low < high
    ranges = np.sort(image[np.isfinite(image)])
    np.testing.assert_allclose(ranges, [np.sqrt(25.25), np.sqrt(25.25), np.sqrt(101.0)])
    columns = np.argwhere(np.isfinite(image))[:, 1]
    assert sorted(columns.tolist()) == [90, 180, 270]
    # What is low stands in a lower row, that is a larger one.
    assert np.argwhere(image == np.sqrt(101.0))[0, 0] > np.argwhere(np.isfinite(image))[0, 0]


def test_boxes_and_flow_are_drawn(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    sweep = make_sweep(torch.rand(500, 3, generator=generator) * 20 - 10)
    boxes = Boxes3D.make(
        torch.tensor([[5.0, 2.0, 0.0], [-5.0, 2.0, 0.0], [1.0, 1.0, 0.0]]),
        torch.tensor([[4.0, 2.0, 1.5]]).repeat(3, 1),
        torch.tensor([0.3, 3.1, 0.0]),
        label=torch.tensor([0, 1, 0]),
    )
    plain = sweep_picture(sweep)
    full = sweep_picture(sweep, boxes=boxes, class_names=("Car", "Pedestrian"), flow=torch.ones(500, 3))
    assert len(full.axes[0].collections) > len(plain.axes[0].collections)
    names = [text.get_text() for text in full.axes[0].get_legend().get_texts()]
    assert names == ["Car (2)", "Pedestrian (1)"]
    path = tmp_path / "new" / "sweep.png"
    save_picture(full, path)
    assert imread(path).shape[:2] == (1420, 1200)


def test_ego_motion_is_no_arrow() -> None:
    sweep = make_sweep(torch.rand(50, 3) * 10)
    motion = torch.eye(4, dtype=torch.float64)
    motion[0, 3] = -1.0
    flow = torch.tensor([-1.0, 0.0, 0.0]).repeat(50, 1)
    flow[7] += torch.tensor([0.0, 2.0, 0.0])
    figure = sweep_picture(sweep, flow=flow, target_T_sensor=motion)
    assert len(figure.axes[0].collections[-1].get_offsets()) == 1


def test_an_empty_sweep_is_a_picture() -> None:
    figure = sweep_picture(make_sweep(torch.zeros(0, 3)), boxes=Boxes3D.empty(), flow=torch.zeros(0, 3))
    assert len(lit(pixels(figure))) == 0


def test_wrong_arguments_are_named() -> None:
    sweep = make_sweep(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="color"):
        sweep_picture(sweep, color="beauty")
    with pytest.raises(ValueError, match="radius"):
        sweep_picture(sweep, radius=0.0)


def test_counts_name_classes_and_points() -> None:
    xyz = torch.tensor([[5.0, 0.0, 0.0], [5.5, 0.0, 0.0], [-5.0, 0.0, 0.0]])
    boxes = Boxes3D.make(torch.tensor([[5.0, 0.0, 0.0], [-5.0, 0.0, 0.0]]), torch.full((2, 3), 2.0), torch.zeros(2))
    text = describe(make_sweep(xyz), boxes, ("Car", "Cyclist"))
    assert "3 points" in text
    assert "Car: 2 objects, points per object 1 to 2" in text
    assert "Cyclist: none" in text


def test_real_sample_sweeps_are_drawn(samples: Path) -> None:
    files = sorted((samples / "kitti_object" / "training" / "velodyne").glob("*.bin"))
    if not files:
        pytest.skip("no KITTI sweeps among the recordings")
    points = torch.from_numpy(np.fromfile(files[0], np.float32).reshape(-1, 4))
    figure = sweep_picture(make_sweep(points[:, :3]))
    assert len(lit(pixels(figure))) > 5000
