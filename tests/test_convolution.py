"""The convolution of every network, in each of its forms, is that of `lax`."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jaxcnn.models import context, convolution, winograd
from jaxcnn.models.convolution import convolve, winograd_tile
from tests import small

# float64 rounds at 1.1e-16; a sum has up to 25 * 20 terms of size 1, and Winograd's transforms multiply the rounding by
# up to about 100 (the sums of absolute values of their rows, squared). One operation in float32 would show at 1e-7.
TOLERANCE = 1e-11


def draw(shape: tuple[int, ...], seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def by_lax(x, kernel, strides, padding, groups=1, dilation=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (strides, strides), [(padding, padding)] * 2, rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


def inputs(image_shape, kernel_shape, strides, padding):
    """Images, kernel, and the gradient of the outputs."""
    x, kernel = draw(image_shape, 0), draw(kernel_shape, 1)
    return (
        x,
        kernel,
        draw(jax.eval_shape(functools.partial(by_lax, strides=strides, padding=padding), x, kernel).shape, 2),
    )


def quickly(function, *arrays):
    """The function compiled as one program, without LLVM's optimisation: there are many shapes, each seen once."""
    return jax.jit(function, compiler_options=small.UNOPTIMISED)(*arrays)


def passes(function, x, kernel, dy):
    """Result, gradient of the images, gradient of the kernel."""
    y, vjp = jax.vjp(function, x, kernel)
    return y, *vjp(dy)


def assert_equal_to_lax(ours, x, kernel, dy, strides, padding):
    theirs = quickly(
        functools.partial(passes, functools.partial(by_lax, strides=strides, padding=padding)), x, kernel, dy
    )
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=TOLERANCE)


@st.composite
def geometries(draw_from, sizes=(1, 2, 3, 4, 5), strides=(1, 2, 3, 4)):
    """(shape of the images, shape of the kernel, strides, padding)"""
    size = draw_from(st.sampled_from(sizes))
    padding = draw_from(st.integers(0, size - 1))
    side = st.integers(max(1, size - 2 * padding), 11)
    images = (draw_from(st.integers(1, 6)), draw_from(side), draw_from(side), draw_from(st.integers(1, 20)))
    kernel = (size, size, images[-1], draw_from(st.integers(1, 20)))
    return images, kernel, draw_from(st.sampled_from(strides)), padding


# Shapes at the edges: (images, kernel, strides, padding). Here these and a few drawn ones; in tests/services many more.
TINY = ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0)
ALL_PADDING = ((1, 1, 1, 3), (5, 5, 3, 2), 1, 4)
ONE_OUTPUT = ((2, 4, 3, 20), (3, 3, 20, 1), 4, 0)
LONG_STRIDE = ((3, 11, 2, 1), (2, 2, 1, 5), 4, 1)  # longer than the kernel: pixels that no output reads
EVEN = ((6, 5, 11, 2), (4, 4, 2, 20), 3, 2)
WINOGRAD_TINY = ((1, 1, 1, 1), (3, 3, 1, 1), 1, 1)
WINOGRAD_UNEVEN = ((5, 11, 9, 2), (3, 3, 2, 20), 1, 2)  # 13x11 outputs, of which the last tiles have some
WINOGRAD_BARE = ((6, 3, 10, 20), (3, 3, 20, 3), 1, 0)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(geometries())
@example(TINY)
@example(ALL_PADDING)
@example(ONE_OUTPUT)
@example(LONG_STRIDE)
@example(EVEN)
def test_convolution_and_its_gradients_are_those_of_lax_for_any_shape(geometry):
    check_convolution(geometry)


def check_convolution(geometry):
    *_, strides, padding = geometry
    with jax.enable_x64(True):
        arrays = inputs(*geometry)
        ours = quickly(functools.partial(passes, lambda x, kernel: convolve(x, kernel, strides, padding)), *arrays)
        assert_equal_to_lax(ours, *arrays, strides, padding)


@pytest.mark.parametrize(
    ("images", "kernel", "strides", "padding", "dilation"),
    [
        ((2, 3, 2, 4), (3, 3, 4, 5), 1, 1, 1),
        ((1, 4, 5, 3), (4, 4, 3, 12), 3, 1, 1),
        ((2, 7, 5, 2), (3, 3, 2, 8), 2, 0, 1),
        ((1, 5, 6, 6), (3, 3, 6, 6), 1, 2, 2),
    ],
)
def test_gradients_of_explanations_are_those_of_lax(images, kernel, strides, padding, dilation):
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    with jax.enable_x64(True):
        x, weights = draw(images, 0), draw(kernel, 1)
        y, back = jax.vjp(lambda x: by_lax(x, weights, **options), x)
        dy = draw(y.shape, 2)
        with context.explaining():
            found = jax.vjp(lambda x: convolve(x, weights, **options), x)[1](dy)[0]
        np.testing.assert_allclose(found, back(dy)[0], rtol=0, atol=TOLERANCE)


OF_WINOGRAD = geometries(sizes=(3,), strides=(1,)), st.sampled_from([2, 4])


@settings(deadline=None, max_examples=6, derandomize=True)
@given(*OF_WINOGRAD)
@example(WINOGRAD_TINY, 2)
@example(WINOGRAD_UNEVEN, 4)
@example(WINOGRAD_BARE, 2)
def test_convolution_by_winograds_forms_is_that_of_lax_for_any_shape_and_tile(geometry, tile):
    check_winograd_chosen(geometry, tile)


def check_winograd_chosen(geometry, tile):
    images, kernel, _, padding = geometry
    pixels = {2: 1, 4: 1 if tile == 4 else 10**6}
    with jax.enable_x64(True), mock.patch.multiple(convolution, WINOGRAD_CHANNELS=1, WINOGRAD_PIXELS=pixels):
        assert winograd_tile(images, kernel, 1, padding) in (2, tile)  # 2 where that is the whole image
        arrays = inputs(*geometry)
        ours = quickly(functools.partial(passes, lambda x, kernel: convolve(x, kernel, 1, padding)), *arrays)
        assert_equal_to_lax(ours, *arrays, 1, padding)


@settings(deadline=None, max_examples=6, derandomize=True)
@given(*OF_WINOGRAD)
@example(WINOGRAD_TINY, 4)
@example(WINOGRAD_UNEVEN, 2)
@example(WINOGRAD_BARE, 4)
def test_winograds_forms_are_those_of_lax_for_any_shape_and_tile(geometry, tile):
    check_winograd_forms(geometry, tile)


def check_winograd_forms(geometry, tile):
    _, _, _, padding = geometry
    with jax.enable_x64(True):
        arrays = inputs(*geometry)

        def forms(x, kernel, dy):
            return (
                winograd.forward(x, kernel, tile=tile, padding=padding),
                winograd.input_gradient(dy, kernel, tile=tile, padding=padding),
                winograd.kernel_gradient(x, dy, tile=tile, padding=padding),
            )

        assert_equal_to_lax(quickly(forms, *arrays), *arrays, 1, padding)


@pytest.mark.parametrize("batch", [6, 7])
def test_winograds_forms_in_parts_of_a_batch_are_those_of_lax(batch, monkeypatch):
    monkeypatch.setattr(winograd, "CACHE", 2**16)  # of three images
    with jax.enable_x64(True):
        x, kernel, dy = arrays = inputs((batch, 9, 6, 5), (3, 3, 5, 7), 1, 1)
        assert winograd._in_parts(x, 12, 4).shape[0] > 1
        with jax.disable_jit():  # nothing traced with another CACHE
            ours = (
                winograd.forward(x, kernel, tile=4, padding=1),
                winograd.input_gradient(dy, kernel, tile=4, padding=1),
                winograd.kernel_gradient(x, dy, tile=4, padding=1),
            )
        assert_equal_to_lax(ours, *arrays, 1, 1)


@pytest.mark.parametrize("tile", [2, 4])
def test_winograds_transforms_make_a_correlation(tile):
    a, b, g = winograd.matrices(tile)
    data, taps = np.random.default_rng(0).standard_normal((2, tile + 2))
    expected = np.correlate(data, taps[:3], mode="valid")
    np.testing.assert_allclose(a.T @ ((g @ taps[:3]) * (b @ data)), expected, rtol=0, atol=1e-14)


def test_winograds_kernel_gradient_copies_the_totals_into_no_array():
    x, _, dy = (array.astype(jnp.float32) for array in inputs((6, 8, 8, 5), (3, 3, 5, 7), 1, 1))
    text = winograd.kernel_gradient.lower(x, dy, tile=4, padding=1).as_text()
    assert "tensor<6x5x7xf32>" in text  # the totals of a row of places
    assert "tensor<6x6x5x7xf32>" not in text


def test_winograds_rounding_in_float32_is_what_the_documentation_says():
    x, kernel = jax.nn.relu(draw((4, 8, 8, 512), 0)), draw((3, 3, 512, 8), 1)  # float32
    with jax.enable_x64(True):
        exact = np.asarray(by_lax(x.astype(jnp.float64), kernel.astype(jnp.float64), 1, 1))
    assert x.dtype == jnp.float32
    error = np.asarray(winograd.forward(x, kernel, tile=4, padding=1), np.float64) - exact
    assert error.std() < 4e-6 * exact.std()  # 2e-6 measured; the customary points have 4.4e-6


@pytest.mark.parametrize(
    ("images", "kernel", "strides", "tile"),
    [
        ((128, 32, 32, 64), (3, 3, 64, 64), 1, 4),
        ((128, 2, 2, 512), (3, 3, 512, 512), 1, 2),  # one tile of 2 is a 2x2 image
        ((32, 4, 4, 512), (3, 3, 512, 512), 1, 2),  # a tile of 4 would make the kernel four times as large
        ((128, 32, 32, 3), (3, 3, 3, 64), 1, 0),  # transforms would outweigh what they save
        ((1, 4, 4, 512), (3, 3, 512, 512), 1, 0),  # so would the transform of the kernel
        ((128, 32, 32, 64), (3, 3, 64, 64), 2, 0),
        ((128, 32, 32, 64), (1, 1, 64, 64), 1, 0),
    ],
)
def test_form_follows_the_shape(images, kernel, strides, tile):
    assert winograd_tile(images, kernel, strides, kernel[0] // 2) == tile


def loss(x, kernel):
    return jnp.sin(convolve(x, kernel, 1, 1)).sum()


@pytest.mark.parametrize("channels", [3, 16])
def test_programs_for_cpus_hold_products_and_those_for_gpus_hold_convolutions(channels):
    arrays = (jnp.zeros((8, 8, 8, channels)), jnp.zeros((3, 3, channels, 16)))
    traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*arrays)
    cpu, cuda = (traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda"))
    assert "stablehlo.convolution" not in cpu
    assert "stablehlo.dot_general" in cpu
    assert cuda.count("stablehlo.convolution") == 3  # forward and two gradients
    assert "stablehlo.dot_general" not in cuda


def test_a_program_exported_for_several_platforms_is_right_here():
    x, kernel = (draw(shape, seed).astype(jnp.float32) for seed, shape in enumerate([(4, 8, 8, 16), (3, 3, 16, 16)]))
    function = jax.jit(jax.grad(loss, argnums=(0, 1)))
    exported = jax.export.export(function, platforms=["cpu", "cuda"])(x, kernel)
    restored = jax.export.deserialize(exported.serialize())
    for ours, expected in zip(restored.call(x, kernel), function(x, kernel), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)  # sums of 144 to 256 terms, rounded at 6e-8


@pytest.mark.parametrize("channels", [3, 16])
def test_bfloat16_is_computed_in_float32_and_rounded_once_on_cpu(channels):
    x, kernel, dy = inputs((4, 8, 8, channels), (3, 3, channels, 16), 1, 1)
    narrow = [array.astype(jnp.bfloat16) for array in (x, kernel, dy)]
    wide = [array.astype(jnp.float32) for array in narrow]
    function = functools.partial(convolve, strides=1, padding=1)
    for ours, exact in zip(passes(function, *narrow), passes(function, *wide), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_array_equal(ours, exact.astype(jnp.bfloat16))


def test_inside_a_loop_and_mapped_over_members_it_is_the_same():
    x, kernel = draw((3, 4, 8, 8, 16), 0), draw((3, 3, 3, 16, 16), 1)
    gradient = jax.grad(loss, argnums=(0, 1))
    one_by_one = [gradient(x[i], kernel[i]) for i in range(3)]
    in_loop = jax.lax.map(lambda arrays: gradient(*arrays), (x, kernel))
    mapped = jax.vmap(gradient)(x, kernel)
    for i in range(3):
        for j in range(2):
            # Other products of matrices, other order of sums: 144 to 256 terms, rounded at 6e-8.
            np.testing.assert_allclose(in_loop[j][i], one_by_one[i][j], rtol=0, atol=1e-4)
            np.testing.assert_allclose(mapped[j][i], one_by_one[i][j], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "strides", "dilation", "groups", "channels", "outputs"),
    [
        (3, 1, 1, 6, 6, 6),
        (3, 2, 1, 6, 6, 12),
        (4, 3, 1, 6, 6, 6),
        (3, 1, 2, 6, 6, 6),
        (3, 2, 1, 3, 6, 9),
        (1, 1, 1, 2, 4, 2),
        (3, 1, 3, 2, 4, 2),
        (4, 1, 2, 1, 3, 4),
        (3, 2, 2, 1, 3, 4),
        (3, 3, 2, 3, 6, 9),
    ],
)
def test_groups_and_dilation_are_those_of_lax(size, strides, dilation, groups, channels, outputs):
    options = {"strides": strides, "padding": dilation * (size - 1) // 2, "groups": groups, "dilation": dilation}
    with jax.enable_x64(True):
        x, kernel = draw((2, 11, 13, channels), 0), draw((size, size, channels // groups, outputs), 1)
        dy = draw(jax.eval_shape(functools.partial(by_lax, **options), x, kernel).shape, 2)
        ours, theirs = (
            quickly(functools.partial(passes, functools.partial(function, **options)), x, kernel, dy)
            for function in (convolve, by_lax)
        )
        for mine, expected in zip(ours, theirs, strict=True):
            assert mine.dtype == jnp.float64
            np.testing.assert_allclose(mine, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("shape", "groups"), [((3, 3, 4, 8), 2), ((3, 3, 2, 7), 2), ((3, 2, 4, 8), 1)])
def test_a_kernel_that_does_not_fit_is_refused(shape, groups):
    with pytest.raises(ValueError, match=r"does not fit 4 channels in \d groups"):
        convolve(jnp.zeros((1, 8, 8, 4)), jnp.zeros(shape), 1, 1, groups)


def test_a_depthwise_convolution_on_a_cpu_is_one_pass_without_a_convolution_or_a_product():
    x, kernel = jnp.zeros((4, 16, 16, 32)), jnp.zeros((3, 3, 1, 32))
    compiled = jax.jit(lambda x, kernel: convolve(x, kernel, 1, 1, 32)).lower(x, kernel).compile()
    text = compiled.as_text()
    assert " convolution(" not in text and " dot(" not in text
    # The padded images at most: no patches, which would be nine times as large as the images.
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * x.nbytes
