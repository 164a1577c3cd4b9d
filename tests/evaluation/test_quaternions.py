"""Against SciPy's rotations."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from equilidar.evaluation.quaternions import rotation_of, yaw_of


@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_rotation_and_yaw(seed: int, scale: float) -> None:
    quaternion = scale * np.random.default_rng(seed).normal(0, 1, (5, 4))
    expected = Rotation.from_quat(quaternion[:, [1, 2, 3, 0]])
    np.testing.assert_allclose(rotation_of(quaternion), expected.as_matrix(), atol=1e-12)
    difference = yaw_of(quaternion) - expected.as_euler("xyz")[:, 2]
    np.testing.assert_allclose(np.remainder(difference + np.pi, 2 * np.pi), np.pi, atol=1e-7)


def test_an_axis_that_points_up_has_yaw_0() -> None:
    assert yaw_of(np.array([[0.707, 0.0, 0.707, 0.0]])).tolist() == [0.0]
