"""Charts are well-formed, keep inside their frame and do not bend the values."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from equilidar.report.charts import HEIGHT, WIDTH, Line, line_chart, thin
from equilidar.report.run_summary import Series


def _series(values: np.ndarray) -> Series:
    return Series(np.arange(len(values), dtype=np.float64), values.astype(np.float64))


def _points(svg: str) -> list[np.ndarray]:
    root = ElementTree.fromstring(svg)
    return [
        np.array([[float(v) for v in point.split(",")] for point in line.attrib["points"].split()])
        for line in root.iter("polyline")
    ]


finite = arrays.arrays(np.float64, st.integers(1, 700), elements=st.floats(-1e6, 1e6))


@settings(max_examples=100, deadline=None)
@given(finite)
def test_any_curve_stays_inside_the_frame(values: np.ndarray) -> None:
    points = _points(line_chart("a < b & c", [Line("x", "blue", _series(values))]))[0]
    assert (points >= 0).all()
    assert (points[:, 0] <= WIDTH).all()
    assert (points[:, 1] <= HEIGHT).all()
    assert (np.diff(points[:, 0]) >= 0).all()


def test_higher_values_are_drawn_higher_and_in_proportion() -> None:
    points = _points(line_chart("t", [Line("x", "blue", _series(np.array([1.0, 2.0, 4.0])))]))[0]
    rise = -np.diff(points[:, 1])
    assert rise[1] == pytest.approx(2 * rise[0], abs=0.2)


def test_a_horizontal_reference_is_inside_the_frame() -> None:
    svg = line_chart("t", [Line("x", "blue", _series(np.array([0.5, 0.6])))], ("chance", 0.1))
    root = ElementTree.fromstring(svg)
    reference = next(line for line in root.iter("line") if line.attrib["class"] == "reference")
    assert 0 < float(reference.attrib["y1"]) < HEIGHT
    assert "chance" in svg


@settings(max_examples=50, deadline=None)
@given(finite, st.integers(1, 300))
def test_thinning_keeps_the_mean_of_whole_groups(values: np.ndarray, most: int) -> None:
    thinned = thin(_series(values), most)
    assert len(thinned.values) <= most
    size = -(-len(values) // most)
    assert thinned.values[0] == pytest.approx(values[:size].mean(), rel=1e-9, abs=1e-3)
    assert values.min() - 1e-3 <= thinned.values.min() <= thinned.values.max() <= values.max() + 1e-3
