"""Groups of runs, paired differences and the tables: what each figure stands on is said, one run is never a mean."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from equilidar.report.fraction_chart import fraction_charts
from equilidar.report.groups import Spread, groups_of
from equilidar.report.page import write_report
from equilidar.report.paired import bootstrap_interval, paired_differences
from equilidar.report.run_summary import RunSummary, find_runs
from equilidar.report.tables import csv_table, json_table, rows_of, text_table, write_tables

from .fake_runs import write_run, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[RunSummary]:
    folder = write_study(tmp_path_factory.mktemp("study"))
    return [RunSummary.read(path) for path in find_runs(folder)]


def test_runs_are_grouped_by_experiment_fraction_and_start(study: list[RunSummary]) -> None:
    groups = groups_of(study)
    assert [(g.fraction, g.start, len(g.runs)) for g in groups] == [
        (0.05, "scratch", 3), (0.05, "pretrained", 3), (0.05, "frozen", 1), (0.1, "scratch", 3), (0.1, "pretrained", 3),
        (0.2, "scratch", 3), (0.2, "pretrained", 3),
    ]  # fmt: skip
    assert groups[0].runs_text == "3 runs, 3 seeds, 3 subsets"
    assert groups[2].runs_text == "one run (seed 0, label seed 0)"


def test_several_runs_on_one_subset_are_several_seeds_and_one_subset(tmp_path: Path) -> None:
    labels = {"fraction": 0.1, "seed": 4, "hash": "ab"}
    for seed in (1, 2):
        write_run(tmp_path / str(seed), command="finetune", seed=seed, init="scratch", ap=40 + seed, labels=labels)
    (group,) = groups_of([RunSummary.read(path) for path in find_runs(tmp_path)])
    assert group.runs_text == "2 runs, 2 seeds, 1 subset"


def test_spread_is_the_sample_deviation_and_a_single_value_has_none() -> None:
    assert Spread((40.0, 44.0, 45.0)).std == pytest.approx(np.std([40, 44, 45], ddof=1))
    assert Spread((40.0,)).std is None and Spread((40.0,)).text == "40.00" and Spread((40.0,)).range_text == ""


def test_cliff_is_the_largest_of_the_runs_and_unknown_where_one_was_not_measured(study: list[RunSummary]) -> None:
    scratch, _, frozen = groups_of(study)[:3]
    r40, r11 = (scratch.spread("car", "3d@0.7", key) for key in ("AP_R40", "AP_R11"))
    assert r40 is not None and r11 is not None and r40.cliff is not None and r11.cliff is not None
    sizes = [run.jitter["car"]["3d@0.7"]["AP_R11"][1] for run in scratch.runs if run.jitter]
    assert r11.cliff == max(sizes) and r40.cliff == pytest.approx(max(sizes) / 4)
    single = frozen.spread("car", "3d@0.7", "AP_R11")
    assert single is not None and single.cliff_text == "cliff not measured"


def test_pairs_are_of_one_label_seed(study: list[RunSummary]) -> None:
    groups = groups_of(study)
    pairs = paired_differences(groups, "car", "3d@0.5")
    assert [(p.after.fraction, p.after.start, p.seeds) for p in pairs] == [
        (0.05, "pretrained", (0, 1, 2)), (0.05, "frozen", (0,)), (0.1, "pretrained", (0, 1, 2)),
        (0.2, "pretrained", (0, 1, 2)),
    ]  # fmt: skip
    figure = {
        (run.label, run.fraction, run.label_seed): run.figures["car"]["3d@0.5"]["AP_R40"][1]
        for run in study
        if run.figures
    }
    by_hand = [figure["pretrained", 0.1, seed] - figure["scratch", 0.1, seed] for seed in range(3)]
    assert pairs[2].differences == pytest.approx(by_hand)
    assert pairs[0].text.endswith("3 pairs; fewer than 5 label subsets carry no claim")
    assert "one pair, no interval" in pairs[1].text and pairs[1].interval is None


def test_pairing_takes_out_what_the_labels_do(study: list[RunSummary]) -> None:
    """Subsets differ by several AP, what pretraining adds differs by less."""
    groups = groups_of(study)
    pair = paired_differences(groups, "car", "3d@0.5")[0]
    spread = groups[0].spread("car", "3d@0.5")
    assert spread is not None and spread.std is not None
    assert np.std(pair.differences, ddof=1) < spread.std


def test_several_runs_of_a_label_seed_are_averaged_first(tmp_path: Path) -> None:
    labels = {"fraction": 0.1, "seed": 0, "hash": "ab"}
    for name, init, ap in (("a", "scratch", 40.0), ("b", "scratch", 44.0), ("c", "pretrained", 45.0)):
        write_run(tmp_path / name, command="finetune", seed=ord(name), init=init, ap=ap, labels=labels)
    groups = groups_of([RunSummary.read(path) for path in find_runs(tmp_path)])
    (pair,) = paired_differences(groups, "car", "3d@0.5")
    assert pair.differences == (3.0,)


def test_one_label_subset_is_called_one_whatever_the_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        for init, ap in (("scratch", 40.0 + seed), ("pretrained", 42.0)):
            labels = {"fraction": 1.0, "seed": seed, "hash": "ab"}  # all labels: every seed draws the same
            write_run(tmp_path / f"{init}{seed}", command="finetune", seed=seed, init=init, ap=ap, labels=labels)
    groups = groups_of([RunSummary.read(path) for path in find_runs(tmp_path)])
    (pair,) = paired_differences(groups, "car", "3d@0.5")
    assert (pair.seeds, pair.num_subsets, pair.differences) == ((0, 1, 2), 1, (2.0, 1.0, 0.0))
    assert pair.text.endswith("3 pairs; all on one label subset")


def test_label_seeds_that_drew_the_same_are_one_pair(tmp_path: Path) -> None:
    for seed, digest in enumerate(("ab", "ab", "cd")):
        for init, ap in (("scratch", 40.0), ("pretrained", 41.0 + seed)):
            labels = {"fraction": 0.1, "seed": seed, "hash": digest}
            write_run(tmp_path / f"{init}{seed}", command="finetune", init=init, ap=ap, labels=labels)
    groups = groups_of([RunSummary.read(path) for path in find_runs(tmp_path)])
    (pair,) = paired_differences(groups, "car", "3d@0.5")
    assert (pair.seeds, pair.num_subsets, pair.differences) == ((0, 2), 2, (1.5, 3.0))


def test_one_label_seed_on_two_subsets_is_no_pair(tmp_path: Path) -> None:
    for init, digest in (("scratch", "ab"), ("pretrained", "cd")):
        labels = {"fraction": 0.1, "seed": 0, "hash": digest}
        write_run(tmp_path / init, command="finetune", init=init, ap=40.0, labels=labels)
    groups = groups_of([RunSummary.read(path) for path in find_runs(tmp_path)])
    with pytest.raises(ValueError, match="both say label seed 0, but were trained on subsets ab and cd"):
        paired_differences(groups, "car", "3d@0.5")


def test_bootstrap_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(1.0, 2.0, 20).tolist()) or (0.0, 0.0)
        hits += low <= 1.0 <= high
    assert 170 <= hits <= 200
    assert bootstrap_interval([1.0, 1.0, 1.0]) == (1.0, 1.0)
    assert bootstrap_interval([1.0]) is None
    assert bootstrap_interval([1.0, 2.0, 4.0]) == bootstrap_interval([1.0, 2.0, 4.0])


def test_text_has_r40_first_and_the_cliff_beside_r11(study: list[RunSummary]) -> None:
    text = text_table(study)
    assert "second_kitti, 5 % of the labels: AP in percent, moderate" in text
    frozen = next(line for line in text.splitlines() if line.strip().startswith("frozen"))
    words = " ".join(frozen.split())
    assert words == "frozen R40 55.00 R11 56.00 (cliff not measured) one run (seed 0, label seed 0)"
    scratch = next(line for line in text.splitlines() if line.strip().startswith("scratch"))
    assert scratch.index("R40") < scratch.index("±") < scratch.index("R11") < scratch.index("(cliff ")
    assert "95% interval" in text


def test_csv_and_json_never_call_a_single_run_a_mean(study: list[RunSummary]) -> None:
    table = list(csv.DictReader(io.StringIO(csv_table(study))))
    assert len(table) == len(rows_of(groups_of(study))) == 7 * 3 * 4 * 6
    for row in table:
        is_single = row["num_runs"] == "1"
        assert (row["mean"] == "") == (row["std"] == "") == is_single and (row["value"] != "") == is_single
        assert len(row["values"].split()) == int(row["num_runs"])
    content = json.loads(json_table(study))
    assert {r["mean"] is None for r in content["figures"] if r["num_runs"] == 1} == {True}
    assert all((p["mean"] is None) == (len(p["differences"]) == 1) for p in content["paired"])
    assert len(content["runs"]) == 19 and content["runs"][0]["subset_hash"]


def test_curves_over_fractions(study: list[RunSummary]) -> None:
    charts = fraction_charts(study)
    assert charts.count("<svg") == 6 and "second_kitti: AP over labels" in charts
    first = charts[: charts.index("</svg>")]
    assert first.count('class="run') == 18 and first.count('class="hollow') == 1 and first.count('class="spread') == 6
    assert "nan" not in charts
    assert fraction_charts([run for run in study if run.fraction == 0.1]) == ""


def test_no_runs_below_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no run directory and holds no finished run"):
        find_runs(tmp_path)
    with pytest.raises(FileNotFoundError, match="no run directory"):
        find_runs(tmp_path / "nowhere")
    unfinished = write_run(tmp_path / "a", command="finetune", ap=1)
    (unfinished / "finished.json").unlink()
    assert find_runs(unfinished) == [unfinished]  # reading it says what is missing
    write_run(tmp_path / "b", command="finetune", ap=1)
    assert find_runs(tmp_path) == [tmp_path / "b"]


def test_means_of_benchmarks_without_difficulties_are_shown(tmp_path):
    runs = []
    for seed, nds in enumerate((0.6, 0.64)):
        folder = write_run(tmp_path / str(seed), command="finetune", seed=seed, init="scratch", ap=50.0)
        figures = {"car": {"AP": 0.8, "attr_err": None}, "mean": {"mAP": nds - 0.1, "NDS": nds}}
        (folder / "metrics.json").write_text(json.dumps(figures))
        runs.append(RunSummary.read(folder))
    text = text_table(runs)
    assert "NDS 0.6200 +- 0.0283" in text and "mAP 0.5200" in text and "2 runs" in text
    page = write_report(tmp_path / "report.html", runs, "two runs", [])
    write_tables(page, runs)
    assert page.is_file()
