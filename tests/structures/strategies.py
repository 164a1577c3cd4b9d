"""Random transforms, clouds and boxes for property tests; float64, so that errors are far below tolerances."""

import math

import torch
from hypothesis import strategies as st

from equilidar.structures import Affine3, Boxes3D, PointCloudBatch
from equilidar.structures.offsets import from_lengths

seeds = st.integers(0, 2**31 - 1)
lengths = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def uniform(generator, low, high, *shape):
    return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)


@st.composite
def similarities(draw, batch_size=None):
    """Rotation about z, mirror, uniform scale and translation, drawn for each item."""
    size = draw(st.integers(1, 4)) if batch_size is None else batch_size
    floats = [
        draw(st.lists(st.floats(low, high), min_size=size, max_size=size))
        for low, high in ((-10, 10), (0.2, 5), *[(-100, 100)] * 3)
    ]
    yaw, scale, *shift = (torch.tensor(values, dtype=torch.float64) for values in floats)
    flips = torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=torch.bool)
    return Affine3.from_parts(yaw=yaw, scale=scale, flip_y=flips, translation=torch.stack(shift, 1))


@st.composite
def affine_maps(draw, batch_size):
    """Any well-conditioned linear part: shears, too."""
    generator = torch.Generator().manual_seed(draw(seeds))
    linear = 2 * torch.eye(3, dtype=torch.float64) + uniform(generator, -0.5, 0.5, batch_size, 3, 3)
    return Affine3(linear, uniform(generator, -50, 50, batch_size, 3))


@st.composite
def clouds(draw, counts=None, channels=("intensity", "time")):
    generator = torch.Generator().manual_seed(draw(seeds))
    counts = draw(lengths) if counts is None else counts
    num = sum(counts)
    return PointCloudBatch(
        uniform(generator, -50, 50, num, 3),
        uniform(generator, 0, 1, num, len(channels)),
        from_lengths(counts),
        channels,
    )


@st.composite
def boxes(draw, counts=None):
    generator = torch.Generator().manual_seed(draw(seeds))
    counts = draw(lengths) if counts is None else counts
    num = sum(counts)
    return Boxes3D.make(
        uniform(generator, -50, 50, num, 3),
        uniform(generator, 0.1, 12, num, 3),
        uniform(generator, -3 * math.pi, 3 * math.pi, num),
        velocity=uniform(generator, -20, 20, num, 3),
        label=torch.randint(0, 3, (num,), generator=generator),
        track=torch.randint(-1, 9, (num,), generator=generator),
        offsets=from_lengths(counts),
    )


def assert_same(one, other):
    """Assert that two batch dataclasses hold the same tensors, bit by bit, and the same other things."""
    assert type(one) is type(other)
    for name in one.__slots__:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=lambda text, n=name: f"{n}: {text}")
        else:
            assert a == b, name
