"""Mixup and cutmix: partners, shares and labels, the same bits on any number of devices and microbatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import Augment
from jaxcnn.data import augment, mixing
from jaxcnn.data.batch import Batch
from jaxcnn.data.order import storage_positions
from jaxcnn.machine.mesh import make_mesh
from jaxcnn.tasks.classes import Classes
from jaxcnn.tasks.multilabel import LabelSets

MEAN, STD = jnp.array([0.4, 0.5, 0.6]), jnp.array([0.2, 0.25, 0.3])
BATCH = 32


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


CLASSES = Classes(BATCH)
jitted = jax.jit(augment.augment, static_argnums=(0, 1))


def global_batch(height=8, width=6):
    image = np.random.default_rng(0).integers(0, 256, (BATCH, height, width, 3), dtype=np.uint8)
    count = jnp.arange(BATCH, dtype=jnp.int32)
    return Batch(jnp.asarray(image), count, count, count, jnp.ones(BATCH, bool))


def storage_order(devices, microbatches):
    return storage_positions(BATCH, devices, microbatches).reshape(-1)


def augment_sharded(config, batch, key, devices, microbatches):
    order = storage_order(devices, microbatches)
    function = jax.shard_map(
        lambda batch, key: augment.augment(
            config, CLASSES, batch, key, MEAN, STD, axis_name="data", microbatches=microbatches
        ),
        mesh=make_mesh(devices),
        in_specs=(jax.P("data"), jax.P()),
        out_specs=jax.P("data"),
        check_vma=False,
    )
    stored = jax.tree.map(lambda value: value[order], batch)
    result = jax.jit(function)(stored, key)
    return jax.tree.map(lambda value: np.asarray(value)[np.argsort(order)], result)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("microbatches", [1, 2, 4])
def test_the_partner_is_one_position_before_on_any_device_and_microbatch(devices, microbatches):
    order = storage_order(devices, microbatches)
    function = jax.shard_map(
        lambda position: mixing.partners(position, "data", microbatches),
        mesh=make_mesh(devices), in_specs=jax.P("data"), out_specs=jax.P("data"), check_vma=False,
    )  # fmt: skip
    np.testing.assert_array_equal(jax.jit(function)(jnp.asarray(order)), (order - 1) % BATCH)
    if devices == 1:
        np.testing.assert_array_equal(mixing.partners(jnp.asarray(order), None, microbatches), (order - 1) % BATCH)


def test_cutmix_of_several_labels_counts_each_by_the_pixels_of_its_image():
    image = jnp.broadcast_to(jnp.arange(BATCH, dtype=jnp.float32)[:, None, None, None], (BATCH, 6, 5, 3))
    hot = np.random.default_rng(1).integers(0, 2, (BATCH, 4)).astype(np.uint8)
    mixed, shares = mixing.mix(Augment(cutmix=1.0), LabelSets(4), image, jnp.asarray(hot), keys(BATCH))
    own = np.asarray(mixed[..., 0] == image[..., 0])
    before = np.roll(np.arange(BATCH), 1)
    np.testing.assert_array_equal(mixed, np.where(own[..., None], image, image[before]))
    share = own.mean(axis=(1, 2))[:, None]
    assert (share < 1).sum() > BATCH / 2 and (share > 0).sum() > BATCH / 2
    # Yun et al. 2019, section 3.1: y = share * y_A + (1 - share) * y_B, for each label; four roundings of float32.
    np.testing.assert_allclose(shares, share * hot + (1 - share) * hot[before], rtol=0, atol=4 * 2.0**-24)
    assert shares.shape == (BATCH, 4) and shares.dtype == jnp.float32


MIXUP = Augment(mixup=0.2)
EVERYTHING = Augment(
    crop="zero", flip="random", cutout=3, mixup=0.4, cutmix=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1,
    policy="randaugment", policy_layers=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "cases"),
    [(MIXUP, ((1, 1), (2, 1), (4, 1), (8, 1), (1, 4), (2, 2), (4, 2), (8, 4))), (EVERYTHING, ((1, 2), (2, 4), (8, 1)))],
    ids=["mixup", "everything"],
)
def test_devices_and_microbatches_never_change_a_bit(config, cases):
    batch, key = global_batch(), jax.random.key(5)
    whole = jitted(config, CLASSES, batch, key, MEAN, STD)
    for devices, microbatches in cases:
        sharded = augment_sharded(config, batch, key, devices, microbatches)
        jax.tree.map(np.testing.assert_array_equal, sharded, whole)


def test_mixup_blends_image_and_label_by_one_share():
    batch, key = global_batch(), jax.random.key(1)
    plain = np.asarray(jitted(Augment(flip="random"), CLASSES, batch, key, MEAN, STD).image, np.float64)
    mixed = jitted(Augment(flip="random", mixup=0.5), CLASSES, batch, key, MEAN, STD)
    np.testing.assert_array_equal(mixed.target.label, batch.target)
    np.testing.assert_array_equal(mixed.target.other, np.roll(batch.target, 1))
    share = np.asarray(mixed.target.share, np.float64)[:, None, None, None]
    expected = share * plain + (1 - share) * np.roll(plain, 1, axis=0)
    # Normalised values are below 4: three roundings of a sum below 8.
    np.testing.assert_allclose(mixed.image, expected, atol=3 * 8 * 2**-24)
    assert len(np.unique(mixed.target.share)) == BATCH


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 50.0])
def test_quantiles_are_symmetric_and_inside_the_unit_interval(alpha):
    quantiles = mixing.beta_quantiles(alpha)
    assert (quantiles >= 0).all() and (quantiles <= 1).all() and (np.diff(quantiles) >= 0).all()
    np.testing.assert_allclose(quantiles, 1 - quantiles[::-1], atol=2**-22)
    if alpha == 1:  # the uniform distribution
        np.testing.assert_allclose(quantiles, (np.arange(4096) + 0.5) / 4096, atol=2**-22)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_shares_have_the_moments_of_the_beta_distribution(alpha):
    draw = jax.jit(jax.vmap(lambda key: mixing.mixup_shares(key, alpha, 2, 2)[1]))
    shares = np.asarray(draw(keys(4000)))
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(shares.mean() - 0.5) < 5 * (variance / 4000) ** 0.5  # 5 standard deviations
    # The squared deviation lies in [0, 1/4], so the standard deviation of its mean is below 1/8 / sqrt(n).
    assert abs(((shares - 0.5) ** 2).mean() - variance) < 5 * 0.125 / 4000**0.5


def test_cutmix_pastes_one_box_of_the_partner_and_weighs_its_exact_area():
    batch, key = global_batch(), jax.random.key(2)
    plain = np.asarray(jitted(Augment(), CLASSES, batch, key, MEAN, STD).image)
    mixed = jitted(Augment(cutmix=1.0), CLASSES, batch, key, MEAN, STD)
    partner = np.roll(plain, 1, axis=0)
    np.testing.assert_array_equal(mixed.target.other, np.roll(batch.target, 1))
    own, pasted = (mixed.image == plain).all(-1), (mixed.image == partner).all(-1)
    assert (own ^ pasted).all()  # exact pixels of one or the other
    np.testing.assert_allclose(mixed.target.share, own.mean(axis=(1, 2)), rtol=2**-23)
    for box in pasted:
        rows, columns = box.any(axis=1), box.any(axis=0)
        np.testing.assert_array_equal(box, rows[:, None] & columns)
        for side in (rows, columns):  # without a gap
            assert np.abs(np.diff(np.r_[0, side, 0].astype(int))).sum() in (0, 2)
    assert pasted.any(axis=(1, 2)).sum() > BATCH // 2


def test_cutmix_boxes_have_their_centre_anywhere_and_their_area_from_the_beta_distribution():
    draw = jax.jit(jax.vmap(lambda key: mixing.cutmix_shares(key, 1.0, 40, 20)))
    kept, weight = map(np.asarray, draw(keys(3000)))
    np.testing.assert_allclose(weight, kept.mean(axis=(1, 2)), rtol=2**-23)
    # What a box of side shares s covers along one axis, its centre uniform, is s (1 - s / 4) on average. The two axes
    # are independent given s = sqrt(u), u uniform: E[u (1 - sqrt(u) / 4)^2] = 1/2 - 1/5 + 1/48. Whole pixels make each
    # side of the box up to one pixel shorter, on average half of one: 0.5 / 40 + 0.5 / 20 of its mean side, 2/3.
    expected = 1 / 2 - 1 / 5 + 1 / 48
    bias = (0.5 / 40 + 0.5 / 20) * 2 / 3
    noise = 5 * 0.3 / 3000**0.5
    assert expected - bias - noise < 1 - weight.mean() < expected + noise
    covered = 1 - kept.mean(axis=0)
    np.testing.assert_allclose(covered, covered[:, ::-1], atol=0.1)
    np.testing.assert_allclose(covered, covered[::-1], atol=0.1)


def test_with_both_on_each_example_gets_one_by_a_fair_coin_and_its_own_draws():
    def weights(**alphas):
        config = Augment(**alphas)
        return jax.jit(
            jax.vmap(
                lambda key: mixing.mix(config, CLASSES, jnp.zeros((1, 3, 5, 1)), jnp.zeros(1, jnp.int32), key[None])[
                    1
                ].share[0]
            )
        )(keys(2000))

    mixup, cutmix, both = weights(mixup=0.7), weights(cutmix=0.7), weights(mixup=0.7, cutmix=0.7)
    from_mixup, from_cutmix = np.asarray(both == mixup), np.asarray(both == cutmix)
    assert (from_mixup | from_cutmix).all()
    assert abs(from_mixup.mean() - 0.5) < 5 * 0.5 / 2000**0.5


def test_a_batch_of_one_is_its_own_partner():
    batch = jax.tree.map(lambda value: value[:1], global_batch())
    plain = jitted(Augment(), CLASSES, batch, jax.random.key(0), MEAN, STD)
    mixed = jitted(Augment(cutmix=1.0), CLASSES, batch, jax.random.key(0), MEAN, STD)
    np.testing.assert_array_equal(mixed.image, plain.image)
    np.testing.assert_array_equal(mixed.target.other, plain.target.label)
