"""The convolution of `models/convolution.py`, and all of its forms on CPU, are that of `lax`."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.models.convolution import _by_lax, convolve

# float64 rounds at 1.1e-16; a sum has up to 9 * 40 terms of size 1, and Winograd's transforms multiply the rounding by
# up to about 100 (the sums of absolute values of their rows, squared). One operation in float32 would show at 1e-7.
TOLERANCE = 1e-11


def draw(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def reference(x, kernel, dy, strides, padding):
    """Result, input gradient and kernel gradient of `lax`."""
    y, vjp = jax.vjp(lambda x, kernel: _by_lax(x, kernel, strides, padding), x, kernel)
    return y, *vjp(dy)


def outputs(length: int, size: int, strides: int, padding: int) -> int:
    return (length + 2 * padding - size) // strides + 1


@st.composite
def geometries(draw_from, sizes=(1, 2, 3, 4, 5), max_strides=4):
    """(image shape, kernel shape, strides, padding)"""
    size = draw_from(st.sampled_from(sizes))
    padding = draw_from(st.integers(0, size - 1))
    side = st.integers(max(1, size - 2 * padding), 11)
    height, width = draw_from(side), draw_from(side)
    channels, features = draw_from(st.integers(1, 20)), draw_from(st.integers(1, 20))
    return (
        (draw_from(st.integers(1, 5)), height, width, channels),
        (size, size, channels, features),
        draw_from(st.integers(1, max_strides)),
        padding,
    )


@settings(deadline=None, max_examples=60, derandomize=True)
@given(geometries())
def test_convolution_and_its_gradients_are_those_of_lax_for_any_shape(geometry):
    (image_shape, kernel_shape, strides, padding) = geometry
    with jax.enable_x64(True):
        x, kernel = draw(image_shape, 0), draw(kernel_shape, 1)
        height, width = (outputs(n, kernel_shape[0], strides, padding) for n in image_shape[1:3])
        dy = draw((image_shape[0], height, width, kernel_shape[-1]), 2)
        y, vjp = jax.vjp(lambda x, kernel: convolve(x, kernel, strides, padding), x, kernel)
        for ours, theirs in zip((y, *vjp(dy)), reference(x, kernel, dy, strides, padding), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
