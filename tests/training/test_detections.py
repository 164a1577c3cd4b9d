"""Outputs that are not finite never pass for a sweep in which nothing was found."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from equilidar.checkpoint.detector import SavedDetector
from equilidar.detection.detector import Detector
from equilidar.structures import Boxes3D, Detections, PointCloudBatch, SensorContract, Sweep
from equilidar.sync_watch import watch_syncs
from equilidar.training.detections import detect, split_detections, stop_if_not_finite
from equilidar.training.predict_stream import Output, predict_stream
from equilidar.training.step_record import NonFiniteError
from tests.detection.test_centerpoint import build as centerpoint
from tests.detection.test_second import scene
from tests.detection.two_stage_detectors import pv_rcnn, voxel_rcnn
from tests.training.tiny_finetuning import batches, sweep, tiny_detector, tiny_module

KEYS = ("drive/a", "drive/b")
# A layer of each stage whose outputs alone break; the scores of anchors stay below the threshold of detections.
DIVERGED: dict[str, tuple[Callable[[], Detector], str]] = {
    "anchor scores": (tiny_detector, "head.conv_cls.weight"),
    "anchor boxes": (tiny_detector, "head.conv_box.weight"),
    "anchor directions": (tiny_detector, "head.conv_dir_cls.bias"),
    "statistics": (tiny_detector, "neck.blocks.0.1.running_var"),
    "center boxes": (centerpoint, "head.heads_list.1.dim.1.bias"),
    "voxel scores": (voxel_rcnn, "roi_head.cls_pred_layer.bias"),
    "voxel boxes": (voxel_rcnn, "roi_head.reg_pred_layer.weight"),
    "voxels' first stage": (voxel_rcnn, "head.conv_box.weight"),
    "keypoint boxes": (pv_rcnn, "roi_head.reg_layers.7.bias"),
}


def points() -> PointCloudBatch:
    return scene()[0]


@torch.no_grad()
@pytest.mark.parametrize("name", DIVERGED)
def test_diverged_weights_are_named_with_the_sweeps(name: str) -> None:
    build, tensor = DIVERGED[name]
    detector = build().eval()
    stop_if_not_finite(detect(detector, points(), KEYS), detector)
    detector.state_dict()[tensor].view(-1)[0] = torch.nan
    found = detect(detector, points(), KEYS)
    with pytest.raises(
        NonFiniteError, match=r"not finite in 2 of 2 sweeps, drive/a, drive/b; the detector's own .*diverged"
    ) as caught:
        stop_if_not_finite(found, detector)
    assert tensor in str(caught.value)


@torch.no_grad()
def test_values_out_of_all_bounds_name_their_sweep_alone() -> None:
    detector, batch = tiny_detector().eval(), batches(1)[0].batch
    assert batch is not None
    batch.points.features[-1] = 3e38  # finite, but not what comes of it
    found = detect(detector, batch.points, batch.keys)
    with pytest.raises(NonFiniteError, match="in 1 of 2 sweeps, 0/1; its weights are finite: look at these sweeps"):
        stop_if_not_finite(found, detector)


def test_many_sweeps_are_counted_and_the_first_are_named() -> None:
    broken = Detections(Boxes3D.empty(), torch.zeros(0), torch.tensor([False]))
    with pytest.raises(NonFiniteError, match="in 9 of 9 sweeps, 0, 1, 2, 3, 4 and 4 more; "):
        stop_if_not_finite({str(number): broken for number in range(9)}, tiny_detector())


def test_a_detector_that_does_not_look_is_looked_at() -> None:
    box = Boxes3D.make(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1))
    stop_if_not_finite({"a": Detections(box, torch.ones(1))}, tiny_detector())
    with pytest.raises(NonFiniteError, match="in 1 of 1 sweeps, a"):
        stop_if_not_finite({"a": Detections(box, torch.full((1,), torch.nan))}, tiny_detector())


def test_looking_waits_for_nothing_more() -> None:
    """What says so travels with the boxes: decoding waits only where it has to for these."""
    detector = tiny_detector().eval()
    predictions = detector(points())
    with watch_syncs() as syncs:
        found = detector.decode(predictions)
    assert syncs and not any("finite" in sync.place for sync in syncs)  # a place holds its line of code
    assert [item.finite.tolist() for item in split_detections(found) if item.finite is not None] == [[True], [True]]


@torch.no_grad()
def test_validation_stops_in_all_processes_alike_also_before_the_first_step() -> None:
    module = tiny_module().eval()
    module.on_validation_epoch_start()
    module.detector.head.conv_box.bias[0] = torch.nan
    for number, loaded in enumerate(batches(2)):
        module.validation_step(loaded, number)  # no process leaves the others here
    with pytest.raises(NonFiniteError, match=r"in 4 of 4 sweeps, 0/0, 0/1, 1/0, 1/1; .*head.conv_box.bias"):
        module.on_validation_epoch_end()


class Sweeps:
    """Sweeps of a source of the user's own, the second with a feature that is no number."""

    contract = SensorContract(("intensity",), (1.0,), "sensor")

    def __init__(self) -> None:
        self.keys = ["0", "1", "2"]

    def __getitem__(self, index: int) -> Sweep:
        item = sweep(self.keys[index])
        features = item.features.clone()
        features[7] = torch.inf if index == 1 else features[7]
        return dataclasses.replace(item, features=features)


def test_prediction_names_a_sweep_that_its_source_did_not_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    detector = tiny_detector()
    saved = SavedDetector({}, {}, detector.class_names, Sweeps.contract, {})
    output = Output(tmp_path, pictures=0)
    summary = predict_stream(saved, detector, Sweeps(), output, about={}, batch_size=2, progress=False)
    assert "2 of 3 sweeps, 1 not read" in summary
    assert "1: 1 of 400 points are not finite" in capsys.readouterr().out
