"""Elevation tables and the order of columns."""

import numpy as np
import pytest

from equilidar.data.simulator import make_sensor


def test_hdl64e_has_two_blocks() -> None:
    elevation = np.array(make_sensor("hdl64e").elevation)[::-1]
    assert len(elevation) == 64
    np.testing.assert_allclose(np.diff(elevation[:32]), -1 / 3)
    np.testing.assert_allclose(np.diff(elevation[32:]), -0.5)
    assert elevation[0] == pytest.approx(2.0)
    assert elevation[31] == pytest.approx(-8.33, abs=0.01)
    assert elevation[32] == pytest.approx(-8.83)
    assert elevation[-1] == pytest.approx(-24.33)


def test_hdl32e_is_uniform() -> None:
    elevation = np.array(make_sensor("hdl32e").elevation)
    assert len(elevation) == 32
    assert elevation[-1] == pytest.approx(10.67, abs=0.01)
    assert elevation[0] == pytest.approx(-30.67, abs=0.01)
    np.testing.assert_allclose(np.diff(elevation), 4 / 3)


def test_vls128_is_densest_near_the_horizon() -> None:
    elevation = np.array(make_sensor("vls128").elevation)
    assert (len(elevation), elevation[0], elevation[-1]) == (128, -25.0, 15.0)
    gaps = np.diff(elevation)
    near = np.abs(elevation[:-1]) < 4
    np.testing.assert_allclose(gaps[near], 0.11)
    assert gaps.min() > 0.1
    assert gaps[0] > 5
    assert gaps[-1] > 3


def test_beam_stride_keeps_the_top() -> None:
    whole, thinned = make_sensor("hdl64e"), make_sensor("hdl64e", beam_stride=4)
    assert thinned.elevation == whole.elevation[3::4]
    assert thinned.elevation[-1] == whole.elevation[-1]


def test_columns_run_clockwise_from_behind() -> None:
    azimuth = make_sensor(azimuth_steps=360).azimuth()
    assert np.all(np.diff(azimuth) < 0)
    assert azimuth[0] == pytest.approx(np.pi - np.pi / 360)
    assert np.abs(azimuth).min() == pytest.approx(np.pi / 360)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "hdl65"}, "hdl64e"),
        ({"beam_stride": 0}, "beam_stride"),
        ({"azimuth_steps": 2}, "azimuth_steps"),
        ({"max_range": 0.5}, "max_range"),
        ({"range_noise": -0.1}, "range_noise"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_sensor(**arguments)
