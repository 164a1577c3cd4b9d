"""Sample a curve at 101 recalls, as nuScenes and Argoverse 2 do."""

import numpy as np
from jaxtyping import Float64

RECALLS: Float64[np.ndarray, " 101"] = np.linspace(0, 1, 101)
"""Recall 0, 0.01, ... 1."""


def sample_at_recalls(
    recall: Float64[np.ndarray, " D"], values: Float64[np.ndarray, " D"]
) -> Float64[np.ndarray, " 101"]:
    """Return `values` at RECALLS, straight lines between; 0 beyond the highest recall that is reached.

    Args:
        recall: recall after each detection of falling score, rising.
        values: what belongs to it, as precision.
    """
    return np.interp(RECALLS, recall, values, right=0)
