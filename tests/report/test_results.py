"""What the tables say: as it is, with the seeds that it stands on."""

import json
import re
from pathlib import Path

import pytest

from equilidar.report.groups import groups_of, spread
from equilidar.report.results import describe, details_table, metric_keys, paired_table, result_table, verdict
from equilidar.report.run_summary import RunSummary

from .fake_runs import write_run


def _runs(folder: Path, **figures: list[float]) -> list[RunSummary]:
    return [
        RunSummary.read(write_run(folder / f"{init}{seed}", command="finetune", init=init, seed=seed, ap=ap, steps=9))
        for init, values in figures.items()
        for seed, ap in enumerate(values)
    ]


def _text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_rows_come_scratch_first_and_figures_car_3d_loose_first(tmp_path: Path) -> None:
    runs = _runs(tmp_path, other=[1.0], pretrained=[40.0], scratch=[39.0])
    assert [group.start for group in groups_of(runs)] == ["scratch", "pretrained", "other"]
    assert metric_keys(runs)[:4] == [("car", "3d@0.5"), ("car", "3d@0.7"), ("car", "bev@0.5"), ("car", "bev@0.7")]


def test_one_run_is_called_one_run_and_has_no_deviation(tmp_path: Path) -> None:
    runs = _runs(tmp_path, scratch=[39.0], pretrained=[40.25])
    text = _text(result_table(runs))
    assert "scratch one run (seed 0) 39.00" in text
    assert "pretrained one run (seed 0) 40.25" in text
    assert "120 objects" in text
    assert " to " not in text and "±" not in text
    assert verdict(runs) == [
        "Pretrained is 1.25 AP above scratch (car, 3D, IoU 0.5, R40, moderate). "
        "One run each: a difference of this kind can be chance."
    ]
    assert "pretrained - scratch quickstart, labels not stated; one pair +1.25 no interval" in _text(paired_table(runs))


def test_several_seeds_show_mean_deviation_and_range(tmp_path: Path) -> None:
    runs = _runs(tmp_path, scratch=[40.0, 44.0, 45.0])
    assert groups_of(runs)[0].runs_text == "3 runs, 3 seeds"
    assert "43.00 ± 2.65 40.00 to 45.00 R11 44.00 ± 2.65 cliff not measured" in _text(result_table(runs))
    figure = spread(runs, "car", "3d@0.5")
    assert figure is not None
    assert figure.values == (40, 44, 45)


def test_a_worse_pretrained_row_is_shown_as_it_is(tmp_path: Path) -> None:
    runs = _runs(tmp_path, scratch=[40.0, 42.0], pretrained=[38.5, 38.5])
    (sentence,) = verdict(runs)
    assert sentence.startswith(
        "Pretrained is 2.50 AP below scratch (car, 3D, IoU 0.5, R40, moderate) on average over 2"
    )
    assert sentence.endswith("Which labels the runs had is not stated.")
    table = result_table(runs)
    assert "<b>41.00 ± 1.41</b>" in table
    assert "38.50 ± 0.00" in table
    assert "<b>38.50" not in table


def test_a_single_run_wins_nothing(tmp_path: Path) -> None:
    table = result_table(_runs(tmp_path, scratch=[40.0, 42.0], pretrained=[60.0]))
    assert "<b>" not in table and "60.00" in table
    assert "quickstart, labels not stated" in _text(table)


def test_without_both_rows_nothing_is_compared(tmp_path: Path) -> None:
    assert verdict(_runs(tmp_path, scratch=[40.0])) == []
    assert paired_table(_runs(tmp_path, scratch=[40.0])) == ""


def test_a_figure_that_a_run_does_not_have_is_a_dash(tmp_path: Path) -> None:
    runs = _runs(tmp_path, scratch=[40.0], pretrained=[41.0])
    assert runs[1].figures is not None
    del runs[1].figures["car"]["3d@0.7"]
    assert "cliff not measured -" in _text(result_table(runs))
    assert spread(runs[1:], "car", "3d@0.7") is None


def test_nothing_found_of_a_class_counts_as_nothing(tmp_path: Path) -> None:
    runs = _runs(tmp_path, scratch=[40.0, 42.0])
    assert runs[1].figures is not None
    runs[1].figures["car"]["3d@0.5"] = None
    figure = spread(runs, "car", "3d@0.5")
    assert figure is not None and figure.values == (40.0, 0.0)
    runs[1].figures["car"]["aos"] = None  # no angles were given
    assert spread(runs[1:], "car", "aos") is None
    nothing = {
        name: dict.fromkeys(own, None) | {"num_ground_truth": [1, 2, 3]} for name, own in runs[1].figures.items()
    }
    (runs[1].folder / "metrics.json").write_text(json.dumps(nothing))
    (group,) = groups_of([RunSummary.read(runs[1].folder)])
    assert "0.00" in _text(result_table(group.runs))


def test_details_hold_both_averages_at_all_levels(tmp_path: Path) -> None:
    text = _text(details_table(_runs(tmp_path, scratch=[40.0])))
    assert "AP R40 AP R11" in text
    assert "car, 3D, IoU 0.5 48.00 40.00 34.00 49.00 41.00 35.00" in text


def test_metrics_in_words() -> None:
    assert describe("car", "3d@0.5") == "car, 3D, IoU 0.5"
    assert describe("car", "bev@loose") == "car, bird's-eye view, loose overlap"
    assert describe("cyclist", "aos") == "cyclist, orientation (AOS), official overlap"


@pytest.mark.parametrize("metric", ["3d", "bbox", "aos", "bev"])
def test_official_figures_without_an_overlap_in_their_name(tmp_path: Path, metric: str) -> None:
    runs = _runs(tmp_path, scratch=[40.0])
    assert runs[0].figures is not None
    runs[0].figures["car"][metric] = runs[0].figures["car"]["3d@0.7"]
    same_kind = [key for key in metric_keys(runs) if key[0] == "car" and key[1].partition("@")[0] == metric]
    assert same_kind[0] == ("car", metric)
    assert "official overlap" in details_table(runs)
