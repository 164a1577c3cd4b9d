"""Estimators side by side on the same pairs: table, figures for a file, pictures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from equilidar.data.labelled_pairs import LabelledPairs
from equilidar.data.packing_plan import spread
from equilidar.evaluation.text_table import text_table, without_nan
from equilidar.flow import FlowEstimator, bound
from equilidar.flow.cache import write_json_file
from equilidar.flow.pose_check import check_poses, widened
from equilidar.flow_runs.instances import instance_table
from equilidar.flow_runs.measuring import EvaluatedPoints, measure, seen_by
from equilidar.nn.device import device_of
from equilidar.report.flow_pictures import flow_picture
from equilidar.report.pictures import save_picture
from equilidar.structures import SweepPairBatch

_EPE = ("epe_three_way", "epe_foreground_dynamic", "epe_foreground_static", "epe_background_static")
_HEADER = (
    "estimator", "3-way [cm]", "FD [cm]", "FS [cm]", "BS [cm]", "bucket", "strict", "relaxed", "known", "s/pair"
)  # fmt: skip


_CHECKED = 4


class FlowComparison:
    """Measures estimators on the same pairs.

    Attributes:
        estimators: by name.
        pairs: with truth.
        indices: of the pairs that are used.
        measured: by name.
        remark: why it cannot be told that the ego motions are the right way round; None where they are.
    """

    def __init__(
        self,
        estimators: Mapping[str, FlowEstimator],
        pairs: LabelledPairs,
        points: EvaluatedPoints,
        *,
        num_pairs: int | None = None,
        device: str = "cpu",
        poses: bool = False,
    ) -> None:
        """Run them.

        Args:
            estimators: by the name they are reported under.
            pairs: with truth.
            points: which points count.
            num_pairs: spread over the dataset; None for all.
            device: that estimators run on; "auto" takes the GPU where there is one.
            poses: check first on a few pairs that the ego motions are not the wrong way round.

        Raises:
            ValueError: fewer pairs than asked for, poses the wrong way round, or no point that counts.
        """
        if num_pairs is not None and not 1 <= num_pairs <= len(pairs):
            raise ValueError(f"num_pairs must lie in 1..{len(pairs)}, the pairs of {pairs.name}, got {num_pairs}")
        self.device = device_of(device)
        self.estimators = {name: bound(one, pairs.pairs) for name, one in estimators.items()}
        self.pairs, self.points = pairs, points
        self.indices = list(spread(len(pairs), num_pairs or len(pairs)))
        self.remark = None
        if poses:
            few = [pairs[self.indices[place]].pair for place in spread(len(self.indices), _CHECKED)]
            self.remark = check_poses(widened(pair, pairs.pairs) for pair in few)
        self.measured = measure(self.estimators, pairs, self.indices, points, self.device)

    def summaries(self) -> dict[str, dict[str, float | None]]:
        """Return the figures of the tool's JSON file; None where no point is of that kind."""
        return cast("dict[str, Any]", without_nan({name: one.summary() for name, one in self.measured.items()}))

    def table(self) -> str:
        """Return a row for each estimator, and the errors of the moving objects with the most points."""
        rows = []
        for name, one in self.measured.items():
            summary = one.summary()
            others = [summary[key] for key in ("bucket_dynamic", "accuracy_strict", "accuracy_relaxed")]
            known = one.num_known / one.num_points
            rows.append([name, *(100 * summary[key] for key in _EPE), *others, known, summary["seconds_per_pair"]])
        first = next(iter(self.measured.values()))
        lines = [f"note: {self.remark}"] if self.remark else []
        lines += [
            f"{self.pairs.name}: {len(self.indices)} pairs, {first.num_points} points that count, "
            f"{sum(first.moving)} of them moving",
            text_table(_HEADER, rows, digits=3),
        ]
        instances = {name: one.instances for name, one in self.measured.items()}
        if any(one.moving for one in first.instances.sums.values()):
            lines += ["", "end-point error by object, metres", instance_table(instances)]
        return "\n".join(lines)

    def write(self, output: str | None, pictures: str | None, num_pictures: int) -> Iterator[Path]:
        """Write figures and pictures; yield each file's path.

        Args:
            output: JSON file of the figures; None for none.
            pictures: folder; None for the output's name without its suffix, none without output.
            num_pictures: of the pairs with the most moving points.
        """
        if output is not None:
            write_json_file(Path(output), self.summaries())
            yield Path(output)
        folder = pictures or (output and Path(output).with_suffix(""))
        if folder:
            yield from self.save_pictures(Path(folder), num_pictures)

    def save_pictures(self, folder: Path, number: int) -> Iterator[Path]:
        """Draw the pairs with the most moving points; yield each picture's path."""
        moving = next(iter(self.measured.values())).moving
        chosen = np.argsort(moving, kind="stable")[::-1][:number]
        for index in sorted(self.indices[place] for place in chosen.tolist()):
            labelled = self.pairs[index]
            flow = labelled.pair.flow
            assert flow is not None
            batches = {
                name: SweepPairBatch.collate([seen_by(one, labelled)]).to(self.device)
                for name, one in self.estimators.items()
            }
            figure = flow_picture(
                labelled.pair.source.xyz.double().numpy(),
                labelled.rest.double().numpy(),
                flow.double().numpy(),
                {name: one(batches[name]).flow.double().cpu().numpy() for name, one in self.estimators.items()},
                self.points(labelled),
                title=labelled.key,
            )
            path = folder / f"{labelled.pair.source.key.replace('/', '_')}.png"
            save_picture(figure, path)
            yield path
