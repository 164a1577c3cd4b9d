"""The official tools on the files of the evaluators' benchmark: seconds of parsing and of computing.

They are optional: an ImportError says that one is not installed.
"""

import json
from pathlib import Path

from stopwatch import Seconds, Stopwatch


def nuscenes(folder: Path) -> dict[str, Seconds]:
    """Run nuscenes-devkit's steps in the order of its DetectionEval; no tables are needed, so none are loaded."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.common.loaders import filter_eval_boxes
    from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
    from nuscenes.eval.detection.constants import TP_METRICS
    from nuscenes.eval.detection.data_classes import DetectionBox

    class NoRacks:
        def get(self, *_: str) -> dict[str, list]:
            return {"anns": []}

    config = config_factory("detection_cvpr_2019")
    watch = Stopwatch()
    with (folder / "gt.json").open() as file:
        truth = EvalBoxes.deserialize(json.load(file)["gt"], DetectionBox)
    with (folder / "det.json").open() as file:
        found = EvalBoxes.deserialize(json.load(file)["results"], DetectionBox)
    parsed = watch.lap()
    truth, found = (filter_eval_boxes(NoRacks(), boxes, config.class_range) for boxes in (truth, found))
    for name in config.class_names:
        for distance in config.dist_ths:
            data = accumulate(truth, found, name, config.dist_fcn_callable, distance)
            calc_ap(data, config.min_recall, config.min_precision)
            if distance == config.dist_th_tp:
                for metric in TP_METRICS:
                    calc_tp(data, config.min_recall, metric)
    return {"parse": parsed, "compute": watch.lap()}


def waymo(folder: Path) -> dict[str, Seconds]:
    """Waymo's tool is an op of TensorFlow 2.12: not run here."""
    raise ImportError("TensorFlow")


def argoverse2(folder: Path) -> dict[str, Seconds]:
    """Run av2's evaluation without maps, in two processes."""
    import pandas as pd
    from av2.evaluation.detection.eval import evaluate
    from av2.evaluation.detection.utils import DetectionCfg

    watch = Stopwatch()
    truth, found = (pd.read_feather(folder / f"{side}.feather") for side in ("gt", "det"))
    parsed = watch.lap()
    evaluate(found, truth, DetectionCfg(eval_only_roi_instances=False), n_jobs=2)
    return {"parse": parsed, "compute": watch.lap()}


def scene_flow(folder: Path) -> dict[str, Seconds]:
    """Run av2's evaluation of scene flow; it reads and computes example by example."""
    from av2.evaluation.scene_flow.eval import evaluate_directories, results_to_dict

    watch = Stopwatch()
    results_to_dict(evaluate_directories(folder / "gt", folder / "det"))
    return {"parse": Seconds(0, 0), "compute": watch.lap()}


PEERS = {"nuscenes": nuscenes, "waymo": waymo, "argoverse2": argoverse2, "scene_flow": scene_flow}
