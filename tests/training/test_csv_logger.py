"""The table of metrics survives kills, resumes and new columns."""

from equilidar.training.csv_logger import ResumableCSVLogger, read_metrics


def _log(folder, rows, from_step=0):
    logger = ResumableCSVLogger(folder, from_step)
    for step, values in rows:
        logger.log_metrics(values, step)
    logger.finalize("success")
    return read_metrics(folder / "metrics.csv")


def test_numbers_come_back_exactly(tmp_path):
    value = 1 / 3 + 1e-17
    assert _log(tmp_path, [(0, {"loss": value}), (1, {"loss": 2.0})]) == [
        {"step": 0, "loss": value},
        {"step": 1, "loss": 2},
    ]


def test_rows_of_one_step_are_one_row_and_columns_may_come_later(tmp_path):
    rows = _log(tmp_path, [(0, {"a": 1.5}), (0, {"b": 2.5}), (1, {"a": 3.5}), (1, {"c": 4.5}), (2, {"b": 0.5})])
    assert rows == [{"step": 0, "a": 1.5, "b": 2.5}, {"step": 1, "a": 3.5, "c": 4.5}, {"step": 2, "b": 0.5}]


def test_a_resumed_run_drops_what_it_will_log_again(tmp_path):
    _log(tmp_path, [(step, {"loss": float(step)}) for step in range(5)])
    rows = _log(tmp_path, [(3, {"loss": 30.0, "new": 1.0})], from_step=3)
    assert [row["loss"] for row in rows] == [0, 1, 2, 30] and rows[-1]["new"] == 1


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    _log(tmp_path, [(0, {"loss": 0.25}), (1, {"loss": 0.5})])
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-3])
    assert [row["step"] for row in read_metrics(path)] == [0]
    rows = _log(tmp_path, [(1, {"loss": 0.75})], from_step=1)
    assert [row["loss"] for row in rows] == [0.25, 0.75]


def test_values_that_are_not_finite_are_kept(tmp_path):
    (row,) = _log(tmp_path, [(0, {"loss": float("inf")})])
    assert row["loss"] == float("inf")
