"""The test helpers must fail where they should."""

import math

import pytest
import torch

from equilidar.structures.offsets import from_lengths
from equilidar.testing import TOLERANCES, assert_close, assert_equivariant, similarities

XYZ = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
WHOLE = from_lengths([20])


def act(transform, xyz):
    return transform.apply(xyz, WHOLE)


def test_an_equivariant_function_passes_with_its_errors():
    errors = assert_equivariant(
        lambda xyz: xyz.mean(0, keepdim=True),
        similarities(6),
        inputs=XYZ,
        act=act,
        act_output=lambda transform, mean: transform.apply(mean, from_lengths([1])),
    )
    assert len(errors) == 6 and all(0 <= value < 1e-4 for value in errors.values())


def test_an_invariant_function_passes():
    rigid = similarities(6, scale=(1.0, 1.0))
    assert_equivariant(lambda xyz: torch.cdist(xyz, xyz), rigid, inputs=XYZ, act=act)


def test_every_failing_case_is_reported():
    """Distances grow with the scale: each sampled scale is off, and the message says by how much."""
    with pytest.raises(AssertionError, match="6 of 6 cases") as error:
        assert_equivariant(lambda xyz: torch.cdist(xyz, xyz), similarities(6), inputs=XYZ, act=act)
    assert str(error.value).count("<-") == 6 and "scale" in str(error.value)


def test_not_a_number_fails():
    with pytest.raises(AssertionError, match="nan"):
        assert_equivariant(lambda xyz: xyz * math.nan, similarities(2), inputs=XYZ, act=act)


def test_an_error_can_be_measured_without_limit():
    errors = assert_equivariant(lambda xyz: xyz, similarities(3), inputs=XYZ, act=act, tolerance=math.inf)
    assert all(value > 0.1 for value in errors.values())


def test_nothing_sampled_is_an_error():
    with pytest.raises(ValueError, match="transform_samples is empty"):
        assert_equivariant(lambda xyz: xyz, {}, inputs=XYZ, act=act)


def test_similarities_are_drawn_as_asked():
    drawn = similarities(40, max_yaw=0.5, scale=(0.9, 1.1), batch_size=2)
    assert len(drawn) == 40
    handed = torch.cat([torch.linalg.det(t.linear).sign() for t in drawn.values()])
    assert (handed > 0).any() and (handed < 0).any()
    for transform in drawn.values():
        assert transform.is_similarity() and ((transform.scales() - 1).abs() <= 0.1 + 1e-6).all()
    assert all((torch.linalg.det(t.linear) > 0).all() for t in similarities(9, mirrors=False).values())
    again = similarities(40, max_yaw=0.5, scale=(0.9, 1.1), batch_size=2)
    assert again.keys() == drawn.keys()
    assert all(torch.equal(again[name].linear, drawn[name].linear) for name in drawn)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_tolerance_follows_the_dtype(dtype):
    relative, _ = TOLERANCES[dtype]
    one = torch.full((3,), 100.0, dtype=torch.float64)
    assert_close((one * (1 + relative / 2)).to(dtype), one.to(dtype))
    with pytest.raises(AssertionError):
        assert_close((one * (1 + 4 * relative)).to(dtype), one.to(dtype))


def test_integers_and_structure_are_compared_exactly():
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([1000001]), torch.tensor([1000000]))
    with pytest.raises(AssertionError, match="2 outputs, expected 1"):
        assert_close([XYZ, XYZ], [XYZ])
