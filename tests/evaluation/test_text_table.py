"""The printed tables."""

import math

from equilidar.evaluation.text_table import text_table, without_nan


def test_text_to_the_left_numbers_to_the_right_dashes_for_nothing() -> None:
    lines = text_table(["class", "AP"], [["car", 0.5], ["pedestrian", math.nan], ["cone", None]]).splitlines()
    assert lines == ["class           AP", "car         0.5000", "pedestrian       -", "cone             -"]


def test_json_knows_no_nan() -> None:
    assert without_nan({"a": [1.0, math.nan], "b": {"c": math.nan}, "d": "x"}) == {
        "a": [1.0, None],
        "b": {"c": None},
        "d": "x",
    }
