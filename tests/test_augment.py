"""The batch-level augmentation and the single-image operations, each against an independent reference."""

import colorsys
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import Augment
from jaxcnn.data import augment, image_ops, order
from jaxcnn.data.batch import Batch
from jaxcnn.learn.state import step_key
from jaxcnn.tasks.classes import Classes

EXAMPLES = 37  # in the split of the tests of flips
MEAN, STD = jnp.array([0.4, 0.5, 0.6]), jnp.array([0.2, 0.25, 0.3])
EVERYTHING = Augment(
    crop="zero", flip="random", cutout=4, mixup=0.4, cutmix=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
    policy="randaugment", policy_layers=1,
)  # fmt: skip


def images(count, height=12, width=10, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def batch_of(image, position=None):
    count = len(image)
    position = np.arange(count) if position is None else np.asarray(position)
    label = jnp.asarray(position % 7, jnp.int32)
    return Batch(jnp.asarray(image), label, label, jnp.asarray(position, jnp.int32), jnp.ones(count, bool))


CLASSES = Classes(10)
jitted = jax.jit(augment.augment, static_argnums=(0, 1))


def run(config, batch, key=None, mean=MEAN, std=STD):
    return jitted(config, CLASSES, batch, jax.random.key(3) if key is None else key, mean, std)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


# Normalisation


def test_normalize_is_the_formula_for_uint8_and_for_floats():
    image = images(2)
    expected = (image / 255.0 - np.asarray(MEAN, np.float64)) / np.asarray(STD, np.float64)
    for given in (image, np.float32(image / 255.0)):
        result = augment.normalize(jnp.asarray(given), MEAN, STD)
        assert result.dtype == jnp.float32
        # Values are below 4; a division, a subtraction and a division, each to half a unit of 2^-23 relative, amplified
        # by at most 1 / min std = 5: 4 roundings * 2^-24 * 5.
        np.testing.assert_allclose(result, expected, rtol=0, atol=4 * 2**-24 * 5)


def test_denormalize_gives_every_pixel_value_back():
    image = np.arange(256, dtype=np.uint8).reshape(1, 256, 1, 1).repeat(3, axis=3)
    back = augment.denormalize(augment.normalize(jnp.asarray(image), MEAN, STD), MEAN, STD)
    np.testing.assert_array_equal(np.round(np.asarray(back) * 255).astype(np.uint8), image)


def test_a_constant_channel_is_centred_and_not_divided_by_zero():
    result = augment.normalize(jnp.full((1, 2, 2, 1), 51, jnp.uint8), jnp.array([0.2]), jnp.array([0.0]))
    np.testing.assert_allclose(result, 0, atol=2**-24)


def test_normalize_off_only_scales_to_the_unit_interval():
    image = images(3)
    result = run(Augment(normalize=False), batch_of(image))
    np.testing.assert_allclose(result.image, image / 255.0, rtol=2**-22)


def test_without_operations_images_are_normalised_and_labels_whole():
    batch = batch_of(images(5))
    result = run(Augment(), batch)
    np.testing.assert_array_equal(result.image, jax.jit(augment.normalize)(batch.image, MEAN, STD))
    np.testing.assert_array_equal(result.target.label, batch.target)
    np.testing.assert_array_equal(result.target.other, batch.target)
    np.testing.assert_array_equal(result.target.share, 1)


# Crop and flip


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("padding", [0, 1, 3, 9])
def test_crop_is_a_window_of_the_padded_image(mode, numpy_mode, padding):
    image = images(1, height=7, width=5)[0]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode=numpy_mode)
    windows = {
        padded[top : top + 7, left : left + 5].tobytes()
        for top, left in itertools.product(range(2 * padding + 1), repeat=2)
    }
    crop = jax.jit(jax.vmap(lambda key: image_ops.random_crop(jnp.asarray(image), key, padding, mode)))
    for cropped in np.asarray(crop(keys(64))):
        assert cropped.tobytes() in windows


def test_crop_offsets_are_uniform_and_independent():
    ramp = np.arange(1, 82, dtype=np.uint8).reshape(9, 9, 1)  # the centre pixel tells the offset
    crop = jax.jit(jax.vmap(lambda key: image_ops.random_crop(jnp.asarray(ramp), key, 2, "zero")[4, 4, 0]))
    draws = np.asarray(crop(keys(5000))).astype(int) - 1
    rows, columns = draws // 9 - 2, draws % 9 - 2
    counts = np.histogram2d(rows, columns, bins=(np.arange(6), np.arange(6)))[0]
    # Each of 25 places expects 200 +- 13.9; 5 standard deviations.
    assert counts.sum() == 5000
    np.testing.assert_allclose(counts, 200, atol=70)


def mirrored(config, image, position=None, index=None, step=0, batch_size=None, seed=0):
    """Which of the images [B, H, W, C] come out mirrored, bool [B]; every one is checked to be mirrored or the same."""
    batch = batch_of(image, position)
    batch_size = batch_size or len(image)
    index = batch.position if index is None else jnp.asarray(index, jnp.int32)
    batch = dataclasses.replace(batch, index=index)
    epoch = order.epoch_of(step, batch.position, batch_size, EXAMPLES)
    config = dataclasses.replace(config, normalize=False)
    out = jitted(config, CLASSES, batch, step_key(seed, step), MEAN, STD, run_key=step_key(seed, -2), epoch=epoch).image
    out = np.round(np.asarray(out) * 255).astype(np.uint8)
    flipped = np.array([np.array_equal(*pair) for pair in zip(out, image[:, :, ::-1], strict=True)])
    same = np.array([np.array_equal(*pair) for pair in zip(out, image, strict=True)])
    assert (flipped ^ same).all()
    return flipped


@pytest.mark.parametrize("flip", ["random", "alternating"])
def test_flip_mirrors_columns_half_of_the_time(flip):
    flipped = mirrored(Augment(flip=flip), images(2000))
    assert abs(flipped.mean() - 0.5) < 5 * 0.5 / 2000**0.5  # 5 standard deviations


@pytest.mark.parametrize("batch_size", [37, 16])
def test_alternating_flips_show_every_example_both_ways_in_any_two_epochs_in_a_row(batch_size):
    # Batches reach over the ends of epochs (37 examples, or 16 at a time of 37).
    image, config, seed = images(EXAMPLES), Augment(flip="alternating"), 7
    ways = np.full((5, EXAMPLES), -1)
    for step in range(-(-4 * EXAMPLES // batch_size)):
        position = np.arange(batch_size, dtype=np.int32)
        index = order.example_index(seed, step, position, batch_size, EXAMPLES)
        epoch = order.epoch_of(step, position, batch_size, EXAMPLES)
        ways[epoch, index] = mirrored(config, image[index], position, index, step, batch_size, seed)
    for epoch in range(3):
        np.testing.assert_array_equal(ways[epoch] ^ ways[epoch + 1], 1)
    assert 0 < ways[0].sum() < EXAMPLES
    other = mirrored(config, image, index=np.arange(EXAMPLES), seed=8)
    assert (other != ways[0]).any()


def test_an_alternating_flip_depends_on_the_example_and_not_on_its_place():
    image, config = images(24), Augment(flip="alternating")
    index = np.arange(24)
    straight = mirrored(config, image, index, index, batch_size=24)
    turned = mirrored(config, image[::-1], index, index[::-1], batch_size=24)
    np.testing.assert_array_equal(straight, turned[::-1])


def test_an_alternating_flip_needs_to_know_the_epoch():
    with pytest.raises(ValueError, match="the key of the run and the epoch"):
        run(Augment(flip="alternating"), batch_of(images(2)))


# Cutout


@pytest.mark.parametrize("side", [1, 4, 5, 30])
def test_cutout_is_a_clipped_square_with_its_centre_anywhere(side):
    height, width = 9, 7
    ones = jnp.ones((height, width, 2))
    expected = set()
    for row, column in itertools.product(range(height), range(width)):
        mask = np.ones((height, width, 2), np.float32)
        top, left = row - side // 2, column - side // 2
        mask[max(top, 0) : top + side, max(left, 0) : left + side] = 0
        expected.add(mask.tobytes())
    cut = jax.jit(jax.vmap(lambda key: image_ops.random_cutout(ones, key, side)))
    assert {one.tobytes() for one in np.asarray(cut(keys(1000)))} == expected


@pytest.mark.parametrize("fields", [{"cutout": 4}, {"erasing": 1.0}])
def test_cutout_and_erasing_fill_with_the_mean_of_the_data(fields):
    batch = batch_of(np.full((4, 8, 8, 3), 255, np.uint8))
    back = augment.denormalize(run(Augment(**fields), batch).image, MEAN, STD)
    is_mean = np.isclose(back, MEAN, atol=1e-6).all(-1)
    is_white = np.isclose(back, 1, atol=1e-6).all(-1)
    assert (is_mean ^ is_white).all()
    assert is_mean.any(axis=(1, 2)).all()


# Random erasing


def erased_as_in_the_paper(random, height, width):
    """Rows and columns of a rectangle by algorithm 1 of Zhong et al. 2017, its ratio uniform in the logarithm."""
    while True:
        area, ratio = random.uniform(0.02, 0.4) * height * width, np.exp(random.uniform(np.log(0.3), -np.log(0.3)))
        rows, columns = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if rows <= height and columns <= width:
            return rows, columns


def test_erasing_cuts_rectangles_of_the_papers_sizes_anywhere():
    height, width, count, probability = 24, 32, 4000, 0.7
    ones = jnp.ones((height, width, 1))
    erase = jax.jit(jax.vmap(lambda key: image_ops.random_erasing(ones, key, probability)[..., 0] == 0))
    masks = np.asarray(erase(keys(count)))
    lines = masks.any(axis=2), masks.any(axis=1)  # the rows, and the columns, in which something is erased
    rows, columns = (each.sum(axis=1) for each in lines)
    np.testing.assert_array_equal(masks.sum(axis=(1, 2)), rows * columns)
    for each in lines:  # they follow one another
        assert (np.abs(np.diff(each.astype(int), axis=1, prepend=0, append=0)).sum(axis=1) <= 2).all()
    happened = rows > 0
    assert abs(happened.mean() - probability) < 5 * (probability * (1 - probability) / count) ** 0.5
    sizes, random = np.stack([rows, columns], axis=1)[happened], np.random.default_rng(0)
    expected = np.array([erased_as_in_the_paper(random, height, width) for _ in range(count)])
    for of in (lambda size: size[:, 0], lambda size: size[:, 1], lambda size: size.prod(axis=1)):
        # Five standard errors of the difference of two means.
        error = np.hypot(of(expected).std() / count**0.5, of(sizes).std() / len(sizes) ** 0.5)
        assert abs(of(sizes).mean() - of(expected).mean()) < 5 * error
    # First places are uniform among those that a size leaves: the mean is half of the room, of at most 30 pixels.
    for each, size, side in ((lines[0], rows, height), (lines[1], columns, width)):
        first, room = each[happened].argmax(axis=1), (side - size)[happened]
        assert (first == 0).any() and (first == room).any()
        assert abs((first - room / 2).mean()) < 5 * 30 / 12**0.5 / len(first) ** 0.5


def test_erasing_leaves_an_image_that_no_rectangle_fits():
    line = jnp.ones((1, 1000, 1))
    np.testing.assert_array_equal(image_ops.random_erasing(line, jax.random.key(0), 1.0), line)


# Colour jitter

FINE, ONE = image_ops.FINE, 1 << image_ops.FACTOR_BITS


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7, 9.0])
def test_brightness_contrast_and_saturation_are_blends_as_torchvision_defines_them(factor):
    image = images(1)[0]
    scaled = image / 255.0
    grey = scaled @ np.array([0.2989, 0.587, 0.114])  # torchvision's weights
    fixed = round(factor * ONE)
    for adjust, other in (
        (image_ops.adjust_brightness, 0.0),
        (image_ops.adjust_contrast, grey.mean()),
        (image_ops.adjust_saturation, grey[..., None]),
    ):
        expected = np.clip(factor * scaled + (1 - factor) * other, 0, 1)
        result = np.asarray(jax.jit(adjust)(jnp.asarray(image, jnp.int32) * FINE, fixed)) / (255 * FINE)
        # Half a unit of the factor; a unit of a pixel, and of the luminance times the factor's distance from 1; and
        # torchvision's weights, which miss a sum of 1 by 1e-4.
        tolerance = 0.5 / ONE + (1 + abs(1 - factor)) / (255 * FINE) + abs(1 - factor) * 2e-4
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue_is_the_rotation_of_the_hsv_circle(turns):
    image = images(1)[0]
    image[0, :5] = [[0, 0, 0], [255, 255, 255], [128, 128, 128], [255, 0, 0], [80, 80, 200]]
    expected = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*(float(channel) / 255 for channel in image[place]))
        expected[place] = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
    shifted = jax.jit(image_ops.adjust_hue)(jnp.asarray(image, jnp.int32) * FINE, round(6 * turns * ONE))
    # The hue is rounded to a unit of the factor, as is the shift (half); the result to a unit of a pixel.
    np.testing.assert_allclose(np.asarray(shifted) / (255 * FINE), expected, rtol=0, atol=1.5 / ONE + 1 / (255 * FINE))


def test_saturation_and_hue_leave_grey_images_alone():
    image = images(2, channels=1)
    result = run(Augment(normalize=False, saturation=0.9, hue=0.5), batch_of(image), mean=jnp.zeros(1), std=jnp.ones(1))
    np.testing.assert_allclose(result.image, image / 255.0, rtol=2**-22)


def test_contrast_of_a_large_image_does_not_overflow():
    fine = jnp.full((700, 600, 1), 250 * FINE, jnp.int32)
    np.testing.assert_allclose(jax.jit(image_ops.adjust_contrast)(fine, 0), fine, atol=8)  # 3 bits less in the mean


def jitter_grey(extent, count):
    """The brightness that each of `count` draws gives to a pixel of 5/255, over 5/255: the drawn factor."""
    grey = jnp.full((1, 1, 3), 5, jnp.uint8)
    draw = jax.jit(jax.vmap(lambda key: image_ops.color_jitter(grey, key, extent, 0, 0, 0)[0, 0, 0]))
    return np.asarray(draw(keys(count))) * 51


def test_jitter_factors_stay_in_their_range_and_fill_it():
    factors = jitter_grey(0.6, 2000)
    unit = 1 / (5 * FINE)  # of a pixel of 5
    assert 0.4 - unit < factors.min() < 0.42
    assert 1.58 < factors.max() <= 1.6 + unit
    # A uniform draw of width 1.2 has a standard deviation of 1.2 / sqrt(12); 5 of its mean's.
    assert abs(factors.mean() - 1) < unit + 5 * 1.2 / 12**0.5 / 2000**0.5


def test_jitter_of_more_than_one_draws_from_zero_up():
    factors = jitter_grey(2.0, 2000)
    assert 0 <= factors.min() < 0.02
    assert 2.98 < factors.max() <= 3.001
    extreme = jitter_grey(1000.0, 200)
    assert 0 <= extreme.min() < extreme.max() <= 51  # white, not an overflow


# The batch


@pytest.mark.parametrize("channels", [1, 3])
def test_dtypes_shapes_and_range_of_everything_at_once(channels):
    batch = batch_of(images(6, channels=channels))
    result = run(EVERYTHING, batch, mean=MEAN[:channels], std=STD[:channels])
    assert result.image.shape == batch.image.shape
    assert result.image.dtype == result.target.share.dtype == jnp.float32
    assert result.target.label.dtype == result.target.other.dtype == jnp.int32
    assert ((result.target.share >= 0) & (result.target.share <= 1)).all()
    pixels = augment.denormalize(result.image, MEAN[:channels], STD[:channels])
    assert (pixels > -1e-5).all()
    assert (pixels < 1 + 1e-5).all()


def test_the_same_key_gives_the_same_bits_and_another_key_others():
    batch = batch_of(images(6, channels=3))
    first, again, other = (run(EVERYTHING, batch, jax.random.key(seed)) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert all((np.asarray(first.image) != np.asarray(other.image)).any(axis=(1, 2, 3)))


@pytest.mark.parametrize("policy", ["none", "randaugment", "autoaugment"])
def test_an_example_keeps_its_augmentation_wherever_it_lies_and_however_many_lie_beside_it(policy):
    config = Augment(crop="reflect", flip="random", cutout=4, erasing=0.5, policy=policy, policy_layers=1)
    if policy == "none":
        config = Augment(crop="reflect", flip="random", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    image = images(13)
    whole = np.asarray(run(config, batch_of(image)).image)
    order = np.random.default_rng(1).permutation(13)
    np.testing.assert_array_equal(run(config, batch_of(image[order], order)).image, whole[order])
    for one in (0, 5, 12):
        np.testing.assert_array_equal(run(config, batch_of(image[[one]], [one])).image, whole[[one]])


def test_equal_images_at_different_positions_are_augmented_differently():
    image = images(1).repeat(16, axis=0)
    result = np.asarray(run(Augment(crop="zero", flip="random", brightness=0.5), batch_of(image)).image)
    assert len({one.tobytes() for one in result}) == 16


def test_switching_operations_on_never_changes_what_others_draw():
    white = batch_of(np.full((8, 12, 12, 3), 255, np.uint8))

    def pixels(**fields):
        return np.asarray(augment.denormalize(run(Augment(**fields), white).image, MEAN, STD))

    def black_border(**fields):
        return np.isclose(pixels(crop="zero", **fields), 0, atol=1e-6).all(-1)

    assert black_border().any()
    np.testing.assert_array_equal(black_border(brightness=0.2, saturation=0.1, hue=0.5), black_border())

    def cut(**fields):
        return np.isclose(pixels(cutout=3, **fields), MEAN, atol=1e-6).all(-1)

    np.testing.assert_array_equal(cut(crop="zero", flip="random", hue=0.2), cut())

    halves = np.full((8, 12, 12, 3), 200, np.uint8)
    halves[:, :, :6] = 50

    def left_is_dark(**fields):
        image = np.asarray(run(Augment(flip="random", **fields), batch_of(halves)).image)
        return image[:, 6, 2, 0] < image[:, 6, 9, 0]

    assert 0 < left_is_dark().sum() < 8
    np.testing.assert_array_equal(left_is_dark(crop="zero", crop_padding=1, contrast=0.2), left_is_dark())

    weights = [
        run(config, white).target.share
        for config in (Augment(mixup=0.4), Augment(mixup=0.4, flip="random", cutout=3, erasing=0.5))
    ]
    np.testing.assert_array_equal(*weights)

    flat = batch_of(np.full((8, 4, 4, 3), 100, np.uint8))  # contrast leaves a flat image as it is
    plain, with_contrast = (run(Augment(brightness=0.5, contrast=contrast), flat).image for contrast in (0.0, 0.3))
    # A unit of a pixel for the mean and one for the blend, over std.
    np.testing.assert_allclose(with_contrast, plain, rtol=0, atol=2 / (255 * FINE) / 0.2)


def test_it_can_be_vmapped_over_steps():
    batch = batch_of(images(4))
    steps = jax.random.split(jax.random.key(0), 3)
    config = Augment(crop="zero", flip="random", contrast=0.4, mixup=0.4)
    together = jax.jit(jax.vmap(lambda key: augment.augment(config, CLASSES, batch, key, MEAN, STD)))(steps)
    for number, key in enumerate(steps):
        alone = run(config, batch, key)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda value, n=number: value[n], together), alone)
