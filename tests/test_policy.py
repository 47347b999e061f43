"""RandAugment, TrivialAugment and AutoAugment: each operation against Pillow, and what the policies draw."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxcnn.config import Augment
from jaxcnn.data import augment, policy
from jaxcnn.data.batch import Batch
from jaxcnn.tasks.classes import Classes

OPERATIONS = policy.OPERATIONS


def picture(height=20, width=17, channels=3):
    """An image of smooth areas and noise that does not use the whole range, so that every operation has work to do."""
    random = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(height) * 5, np.arange(width) * 3)[..., None] + np.arange(channels) * 20
    return np.clip(ramp + random.integers(0, 30, (height, width, channels)) + 10, 0, 255).astype(np.uint8)


jitted = jax.jit(policy.apply)


def apply_named(image, name, amount=0.0):
    return np.asarray(jitted(jnp.asarray(image), policy.setting(name, amount, *image.shape[:2])))


def pil(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def affine(coefficients):
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST)


def differences(image, name, amount, reference):
    expected = np.asarray(reference(pil(image))).reshape(image.shape)
    result = apply_named(image, name, amount)
    assert result.dtype == np.uint8
    return np.abs(result.astype(int) - expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_tonal_operations_are_pillows(channels):
    image = picture(channels=channels)
    assert differences(image, "identity", 0, lambda one: one).max() == 0
    assert differences(image, "equalize", 0, ImageOps.equalize).max() == 0
    assert differences(image, "invert", 0, ImageOps.invert).max() == 0
    # Pillow multiplies by a rounded quotient and truncates, which can miss a whole number by one.
    assert differences(image, "autocontrast", 0, ImageOps.autocontrast).max() <= 1
    for threshold in (0, 60, 178.5, 255):
        assert differences(image, "solarize", threshold, lambda one, t=threshold: ImageOps.solarize(one, t)).max() == 0
    for bits in (2, 4, 7, 8):
        assert differences(image, "posterize", bits, lambda one, b=bits: ImageOps.posterize(one, b)).max() == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.1, 0.73, 1.0, 1.27, 1.9])
def test_enhancements_are_pillows(channels, factor):
    image = picture(channels=channels)
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "sharpness": ImageEnhance.Sharpness,
        "color": ImageEnhance.Color,
    }
    for name, enhancer in enhancers.items():
        # Both truncate the blend; a factor rounded to 2^-12 can fall on the other side of a whole number.
        assert differences(image, name, factor, lambda one, e=enhancer: e(one).enhance(factor)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_geometric_operations_are_pillows(channels):
    image = picture(channels=channels)
    for amount in (-0.29, -0.09, 0.21, 0.99):
        assert differences(image, "shear_x", amount, affine((1, amount, 0, 0, 1, 0))).max() == 0
        assert differences(image, "shear_y", amount, affine((1, 0, 0, amount, 1, 0))).max() == 0
    for amount in (-32, -3, 0, 5):
        assert differences(image, "translate_x", amount, affine((1, 0, amount, 0, 1, 0))).max() == 0
        assert differences(image, "translate_y", amount, affine((1, 0, 0, 0, 1, amount))).max() == 0
    for degrees in (-135.0, -30.0, 9.0, 90.0, 117.0):
        # The place of a pixel is a sum of coefficients rounded to 2^-16; Pillow rounds the first pixel's place as a
        # whole. A place within that of a border between two pixels may be taken from the other: not one in a hundred.
        wrong = differences(image, "rotate", degrees, lambda one, d=degrees: one.rotate(d)).max(axis=-1) > 0
        assert wrong.mean() < 0.01


def test_constant_and_tiny_images_come_through():
    for shape in ((5, 4, 3), (1, 1, 3), (2, 2, 1)):
        image = np.full(shape, 77, np.uint8)
        for name in ("autocontrast", "equalize", "sharpness", "contrast", "color"):
            np.testing.assert_array_equal(apply_named(image, name, 1.9), image)


def test_amounts_at_the_levels_of_the_papers():
    def amounts(of, level, sign):
        return {name: of(name, level, sign, 32, 64) for name in OPERATIONS}

    highest = amounts(policy.randaugment_amount, 30, 1)
    expected = {"rotate": 30, "solarize": 0, "posterize": 4, "color": 1.9, "shear_y": 0.3}
    expected |= {"translate_x": 29, "translate_y": 14}  # 150 / 331 of 64 and of 32
    assert {name: highest[name] for name in expected} == pytest.approx(expected)
    ninth = amounts(policy.randaugment_amount, 9, -1)
    expected = {"rotate": -9, "solarize": 178.5, "posterize": 7, "contrast": 0.73, "shear_x": -0.09, "translate_y": -4}
    assert {name: ninth[name] for name in expected} == pytest.approx(expected)
    wide = amounts(policy.trivialaugment_amount, 30, -1)
    expected = {"rotate": -135, "posterize": 2, "sharpness": 0.01, "shear_x": -0.99, "translate_x": -32}
    assert {name: wide[name] for name in expected} == pytest.approx(expected)
    for level in range(31):  # whole pixels, whatever the rounding of the division
        assert policy.trivialaugment_amount("translate_x", level, 1, 8, 8) == level * 32 // 30


def test_randaugment_at_magnitude_zero_leaves_what_has_no_strength():
    image = picture()
    results = jax.jit(jax.vmap(lambda key: policy.randaugment(jnp.asarray(image), key, 1, 0.0)))(
        jax.random.split(jax.random.key(0), 200)
    )
    allowed = {
        image.tobytes(),
        apply_named(image, "autocontrast").tobytes(),
        apply_named(image, "equalize").tobytes(),
        apply_named(image, "solarize", 255).tobytes(),
    }
    assert {one.tobytes() for one in np.asarray(results)} == allowed


def draws_of(function, image, count):
    results = jax.jit(jax.vmap(lambda key: function(jnp.asarray(image), key)))(
        jax.random.split(jax.random.key(1), count)
    )
    return [one.tobytes() for one in np.asarray(results)]


def test_randaugment_draws_every_operation_equally_often_and_both_directions():
    image, count = picture(), 2800
    outcomes: dict[bytes, set[str]] = {}
    for sign, name in itertools.product((-1, 1), OPERATIONS):
        outcome = apply_named(image, name, policy.randaugment_amount(name, 9, sign, 20, 17)).tobytes()
        outcomes.setdefault(outcome, set()).add(name if name in UNSIGNED else f"{name}{sign:+}")
    counts = dict.fromkeys(outcomes, 0)
    for draw in draws_of(lambda image, key: policy.randaugment(image, key, 1, 9.0), image, count):
        counts[draw] += 1  # a KeyError is an outcome that no operation has
    for outcome, names in outcomes.items():
        share = sum(1 / 14 if name in UNSIGNED else 1 / 28 for name in names)
        assert abs(counts[outcome] - count * share) < 5 * (count * share) ** 0.5, names


UNSIGNED = ("identity", "autocontrast", "equalize", "solarize", "posterize")


def test_two_layers_are_two_independent_draws():
    image = picture()
    one = draws_of(lambda image, key: policy.randaugment(image, key, 1, 9.0), image, 100)
    two = draws_of(lambda image, key: policy.randaugment(image, key, 2, 9.0), image, 100)
    assert len(set(two)) > 2 * len(set(one)) > 2


def test_trivialaugment_draws_its_strength_anew():
    image = picture()
    assert len(set(draws_of(policy.trivialaugment, image, 300))) > 100  # 24 outcomes at any one strength


STRONGEST = {  # at strength 9 of 9, as torchvision's AutoAugment has it for images of 20 x 17
    "rotate": 30, "shear_y": 0.3, "translate_x": 17 * 150 / 331, "translate_y": 20 * 150 / 331,
    "color": 0.9, "contrast": 0.9, "brightness": 0.9, "sharpness": 0.9,
}  # fmt: skip


def as_torchvision(name, strength):
    """The amounts, in the units of `policy.setting`, that an operation of AutoAugment may have, each equally likely."""
    if name in ("autocontrast", "equalize", "invert"):
        return [0]
    if name == "solarize":
        return [np.linspace(255, 0, 10)[strength]]
    if name == "posterize":
        return [8 - round(strength / (9 / 4))]
    amount = np.linspace(0, STRONGEST[name], 10)[strength]
    amount = int(amount) if name.startswith("translate") else amount
    return [1 + amount, 1 - amount] if STRONGEST[name] == 0.9 else [amount, -amount]


def test_autoaugment_draws_every_pair_equally_often_and_each_operation_with_its_probability():
    image, count = picture(), 6000

    def after(image, name, tenths, strength):
        amounts = as_torchvision(name, strength)
        yield image, 1 - tenths / 10
        for amount in amounts if tenths else ():
            yield apply_named(image, name, amount), tenths / 10 / len(amounts)

    expected: dict[bytes, float] = {}
    for first, second in policy.PAIRS:
        for once, share in after(image, *first):
            for twice, other in after(once, *second):
                expected[twice.tobytes()] = expected.get(twice.tobytes(), 0) + share * other / 25
    assert sum(expected.values()) == pytest.approx(1)
    counts = dict.fromkeys(expected, 0)
    for draw in draws_of(policy.autoaugment, image, count):
        counts[draw] += 1  # a KeyError is an outcome that no pair has
    often = {outcome: share * count for outcome, share in expected.items() if share * count >= 20}
    assert sum(often.values()) > 0.8 * count
    for outcome, wanted in often.items():
        assert abs(counts[outcome] - wanted) < 5 * wanted**0.5


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment", "autoaugment"])
def test_the_batch_goes_through_the_policy_with_the_examples_own_key(name):
    image = jnp.asarray(picture())[None].repeat(6, axis=0)
    label = jnp.arange(6, dtype=jnp.int32)
    batch = Batch(image, label, label, label, jnp.ones(6, bool))
    config = Augment(policy=name, policy_layers=1, normalize=False)  # type: ignore[arg-type]
    made = jax.jit(augment.augment, static_argnums=(0, 1))
    result = made(config, Classes(6), batch, jax.random.key(0), jnp.zeros(3), jnp.ones(3))
    alone = jax.jit(
        (lambda image, key: policy.randaugment(image, key, 1, 9.0)) if name == "randaugment" else getattr(policy, name)
    )
    for position in range(6):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), position), augment.Draw.POLICY)
        np.testing.assert_array_equal(jnp.round(result.image[position] * 255), alone(image[0], key))
