"""Boxes are drawn where they are."""

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from equilidar.report.detection_pictures import FOUND_COLOR, TRUTH_COLOR, detections_picture
from equilidar.structures import Boxes3D, Detections


def _boxes(*centers: tuple[float, float]) -> Boxes3D:
    rows = torch.tensor([[x, y, -1.0] for x, y in centers]).reshape(-1, 3)
    return Boxes3D.make(rows, torch.tensor([[6.0, 3.0, 1.5]]).repeat(len(rows), 1), torch.zeros(len(rows)))


def _pixels(figure: Figure, color: str) -> np.ndarray:
    """Metres (ahead, left) of the pixels in a color, the legend left out."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255.0  # pyright: ignore
    near = np.abs(image - to_rgb(color)).max(2) < 0.35
    rows, columns = np.nonzero(near)
    axes = figure.axes[0]
    places = axes.transData.inverted().transform(np.stack([columns, image.shape[0] - rows], 1))
    metres = places[:, ::-1]
    return metres[(np.abs(metres) < 39).all(1) & ~((metres[:, 0] > 30) & (metres[:, 1] < 0))]


def test_boxes_lie_ahead_up_and_left_left() -> None:
    found = Detections(_boxes((-20.0, 5.0)), torch.tensor([1.0]))
    figure = detections_picture(torch.zeros(0, 3), _boxes((10.0, 20.0)), found)
    truth, red = _pixels(figure, TRUTH_COLOR), _pixels(figure, FOUND_COLOR)
    np.testing.assert_allclose([truth.min(0), truth.max(0)], [[7, 18.5], [13, 21.5]], atol=0.5)
    np.testing.assert_allclose([red.min(0), red.max(0)], [[-23, 3.5], [-17, 6.5]], atol=0.5)


def test_unsure_detections_are_left_out_and_counted() -> None:
    found = Detections(_boxes((-20.0, 5.0), (5.0, 5.0), (0.0, -9.0)), torch.tensor([0.9, 0.2, 0.3]))
    figure = detections_picture(torch.zeros(0, 3), Boxes3D.empty(), found, min_score=0.25)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "ground truth (0)",
        "detections, score from 0.25 (2)",
    ]
    red = _pixels(figure, FOUND_COLOR)
    assert len(red)
    assert not ((red[:, 0] > 3.5) & (red[:, 1] > 3)).any()
