"""PointCloud2: every order, type, padding and byte order; point times of every driver."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilidar.data.faults import FaultySweepError
from equilidar.data.pointcloud2 import cloud_columns, is_return, seconds_after
from tests.data.fake_logs import FLOAT32, FLOAT64, UINT8, UINT16, UINT32, Cloud, typestore

TYPES = {FLOAT32: "f4", FLOAT64: "f8", UINT8: "u1", UINT16: "u2", UINT32: "u4"}


def message(cloud: Cloud) -> SimpleNamespace:
    types = typestore(False).types
    made = cloud.message(types, None)
    return SimpleNamespace(**{name: getattr(made, name) for name in made.__dataclass_fields__})


@st.composite
def clouds(draw: st.DrawFn) -> Cloud:
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    names = draw(st.permutations(["x", "y", "z", "intensity", "ring", "t"]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    fields, offset = [], draw(st.integers(0, 4))
    for name in names:
        datatype = draw(st.sampled_from([FLOAT32, FLOAT64] if name in "xyz" else list(TYPES)))
        values = rng.uniform(0, 200, height * width).astype(TYPES[datatype])
        fields.append((name, offset, datatype, values))
        offset += np.dtype(TYPES[datatype]).itemsize + draw(st.integers(0, 3))
    return Cloud(
        fields,
        point_step=offset + draw(st.integers(0, 5)),
        height=height,
        row_padding=draw(st.integers(0, 7)),
        big_endian=draw(st.booleans()),
    )


@settings(max_examples=60, deadline=None)
@given(clouds())
def test_any_layout_is_read_back(cloud: Cloud):
    columns = cloud_columns(message(cloud), "log")
    assert set(columns) == {name for name, *_ in cloud.fields}
    for name, _, _, values in cloud.fields:
        np.testing.assert_array_equal(columns[name], values)


def test_fields_of_several_values_and_twin_names_are_left_out():
    values = np.arange(3, dtype=np.float32)
    cloud = Cloud([("x", 0, FLOAT32, values)], 32, extra_fields=[("normal", 4, FLOAT32, 3), ("x", 16, FLOAT32, 1)])
    columns = cloud_columns(message(cloud), "log")
    assert list(columns) == ["x"]
    np.testing.assert_array_equal(columns["x"], values)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"data": np.zeros(10, np.uint8)}, r"log: truncated, 10 of 36 bytes for 1 x 3 points"),
        ({"point_step": 2}, r"field 'x' \(datatype 7, offset 0\) does not fit into points of 2 bytes"),
        ({"fields": []}, "without fields"),
        ({"fields": [SimpleNamespace(name="x", offset=0, datatype=77, count=1)]}, "datatype 77"),
    ],
)
def test_broken_clouds_say_what_is_wrong(change: dict, text: str):
    values = np.arange(3, dtype=np.float32)
    broken = message(Cloud([(axis, 4 * i, FLOAT32, values) for i, axis in enumerate("xyz")], 12))
    with pytest.raises(FaultySweepError, match=text):
        cloud_columns(SimpleNamespace(**{**vars(broken), **change}), "log")


def test_a_row_step_of_zero_and_no_points():
    values = np.arange(4, dtype=np.float32)
    cloud = message(Cloud([("x", 0, FLOAT32, values)], 4, height=2))
    cloud.row_step = 0
    np.testing.assert_array_equal(cloud_columns(cloud, "log")["x"], values)
    cloud.width, cloud.data = 0, np.zeros(0, np.uint8)
    assert len(cloud_columns(cloud, "log")["x"]) == 0


def test_missing_returns():
    nan = np.nan
    columns = {"x": np.array([1, nan, 0, 0, 2]), "y": np.array([1, 1, 0, 1, np.inf]), "z": np.array([0, 1, 0, 0, 1])}
    assert is_return(columns).tolist() == [True, False, False, True, False]


STAMP = 1_700_000_000_250_000_000


@pytest.mark.parametrize(
    ("raw", "unit"),
    [
        (np.array([0, 50_000_000, 100_000_000], np.uint32), "auto"),  # Ouster's t, Livox's offset_time
        (np.array([0, 0.05, 0.1], np.float32), "auto"),  # Velodyne's time
        (np.array([0, 0.05, 0.1]) + STAMP * 1e-9, "auto"),  # Hesai's and RoboSense's timestamp
        (STAMP + np.array([0, 5, 10]) * 1e7, "auto"),  # Livox's timestamp
        (np.array([STAMP, STAMP + 50_000_000, STAMP + 100_000_000], np.uint64), "auto"),
        (np.array([STAMP // 1000 + v for v in (0, 50_000, 100_000)], np.uint64), "auto"),
        (np.array([0, 50_000, 100_000], np.uint32), "us"),
        (np.array([0, 50, 100], np.float32), "ms"),
    ],
)
def test_point_times_of_every_driver(raw: np.ndarray, unit: str):
    np.testing.assert_allclose(seconds_after(raw, STAMP, "log", unit), [0, 0.05, 0.1], atol=1e-6)


def test_point_times_that_no_sweep_has():
    with pytest.raises(ValueError, match=r"log: point times reach 1e\+05 s .* in s; set dataset\.time_unit"):
        seconds_after(np.array([0, 100_000.0]), STAMP, "log")
    with pytest.raises(ValueError, match=r"dataset\.time_unit"):
        seconds_after(np.array([1.0, np.nan]), STAMP, "log")
    assert len(seconds_after(np.zeros(0), STAMP, "log")) == 0
