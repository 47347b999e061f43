"""Muon, against its definition written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.config import Optim
from jaxcnn.learn import muon, optim, rates
from jaxcnn.learn.state import Hyper
from jaxcnn.models import whitening

RATE, DECAY, MOMENTUM, SGD_MOMENTUM = 0.24, 0.02, 0.6, 0.85
FACTORS = {"bias": 3.0, "classifier": 5.0}


def draw(*shape, seed=0):
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape)


PARAMS = {
    "whitening": {"kernel": draw(2, 2, 3, 24), "bias": draw(24)},
    "conv": {"kernel": draw(3, 3, 4, 6)},
    "block": {"wide": {"kernel": draw(1, 1, 3, 8)}},
    "bn": {"bias": draw(6)},
    "classifier": {"kernel": draw(6, 5)},
}


def gradients(step):
    return jax.tree.map(lambda x: draw(*x.shape, seed=100 + step), PARAMS)


def polynomial_of_singular_values(kernel, steps):
    """What Newton-Schulz computes by matrix products, by a singular value decomposition."""
    left, values, right = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return ((left * values) @ right).reshape(kernel.shape)


def by_definition(steps, nesterov, scales, every=1):
    """The parameters after `steps`, and what each one is."""
    params = jax.tree.map(np.copy, PARAMS)
    velocity = jax.tree.map(np.zeros_like, PARAMS)

    def move(tree, speed, gradient, path=()):
        for name in tree:
            if isinstance(tree[name], dict):
                move(tree[name], speed[name], gradient[name], (*path, name))
                continue
            weight, here = tree[name], (*path, name)
            if here == ("whitening", "kernel"):
                continue
            is_kernel = name == "kernel" and path[0] != "classifier"
            change, momentum = gradient[name], MOMENTUM
            if not is_kernel:
                change = FACTORS["classifier" if path[0] == "classifier" else "bias"] * change + DECAY * weight
                momentum = SGD_MOMENTUM
            speed[name] = momentum * speed[name] + change
            change = change + momentum * speed[name] if nesterov else speed[name]
            if is_kernel:
                if step % every == 0:
                    weight = weight * np.sqrt(weight.shape[-1]) / np.linalg.norm(weight)
                change = polynomial_of_singular_values(change, 3)
            elif here == ("whitening", "bias"):
                change = scale * change
            tree[name] = weight - RATE * change

    for step in range(steps):
        scale = scales[step]
        move(params, velocity, gradients(step))
    return params


@pytest.mark.parametrize(("nesterov", "batched", "every"), [(True, False, 1), (False, False, 1), (True, True, 2)])
def test_muon_is_its_definition(nesterov, batched, every):
    fields = Optim(
        name="muon",
        newton_schulz_batched=batched,
        renormalize_every=every,
        nesterov=nesterov,
        sgd_momentum=SGD_MOMENTUM,
        bias_gradient_factor=FACTORS["bias"],
        classifier_gradient_factor=FACTORS["classifier"],
        decay_norm_and_bias=True,
    )
    scales = (1.0, 0.5, 0.0)
    with jax.enable_x64(True):
        hyper = Hyper(*(jnp.float64(x) for x in (RATE, DECAY, MOMENTUM, 0)), jnp.uint32(0))
        params: dict = jax.tree.map(jnp.asarray, PARAMS)
        part = rates.trainable(params, whitening.FROZEN)
        state = optim.make_optimizer(fields, hyper, hyper.learning_rate).init(part)
        for step in range(3):
            scale = rates.scale(whitening.FROZEN, {whitening.BIAS: scales[step]})
            optimizer = optim.make_optimizer(fields, hyper, hyper.learning_rate, scale, jnp.int32(step))
            part, grads = (rates.trainable(tree, whitening.FROZEN) for tree in (params, gradients(step)))
            updates, state = optimizer.update(jax.tree.map(jnp.asarray, grads), state, part)
            params = rates.merged(optax.apply_updates(part, updates), params)
    expected = by_definition(3, nesterov, scales, every)
    np.testing.assert_array_equal(params["whitening"]["kernel"], PARAMS["whitening"]["kernel"])
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(expected), strict=True
    ):
        # The norm's epsilon, 1e-10 of a norm above 1, grows with the slope of three polynomials: 1e-10 * 3.5^3 = 4e-9.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=4e-9, err_msg=jax.tree_util.keystr(path))


def test_orthogonalisation_is_that_of_optax():
    kernel = draw(3, 3, 8, 16).astype(np.float32)
    numbers = optax.contrib.MuonDimensionNumbers((0, 1, 2), 3)
    theirs = optax.contrib.scale_by_muon(
        ns_steps=3, beta=0.0, nesterov=False, weight_dimension_numbers={"kernel": numbers}
    )
    expected, _ = theirs.update({"kernel": kernel}, theirs.init({"kernel": kernel}))
    ours = muon.orthogonalize(jnp.asarray(kernel), 3)
    # Products of matrices of 72 terms, nine in a row, of entries below 1, in float32: 9 * 72 * 2^-24 = 4e-5.
    np.testing.assert_allclose(ours, expected["kernel"], atol=4e-5)


def test_kernels_of_one_shape_are_orthogonalised_in_one_call_to_the_same_values():
    shapes = {"a": (3, 3, 8, 16), "b": (3, 3, 8, 16), "c": (1, 1, 16, 72), "alone": (2, 2, 3, 8), "large": (64, 1024)}
    shapes["larger"] = shapes["large"]  # on CPU, both by their Gram matrices
    kernels = {name: jnp.asarray(draw(*shape, seed=len(name)), jnp.float32) for name, shape in shapes.items()}
    apart = jax.jit(lambda tree: jax.tree.map(lambda kernel: muon.orthogonalize(kernel, 3), tree))
    together = jax.jit(lambda tree: muon.orthogonalize_together(tree, 3))
    for name, kernel in together(kernels).items():
        # As above: nine products in a row, of at most 1024 terms with either sign, of a slope of 41.
        np.testing.assert_allclose(kernel, apart(kernels)[name], rtol=0, atol=7e-5, err_msg=name)
    # Nine products of each matrix, eleven of large ones on CPU; of four and two kernels, or of two and one shapes.
    products = [program.lower(kernels).as_text().count("stablehlo.dot_general") for program in (apart, together)]
    assert products == [4 * 9 + 2 * 11, 2 * 9 + 11]


def test_small_singular_values_are_right_in_float32():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((length, 96)))[0] for length in (96, 800))
    kernel = (right * np.logspace(0, -6, 96)) @ left.T  # "inputs o": its gram matrix has eigenvalues down to 1e-12
    assert kernel.size >= muon.LARGE
    ours = muon.orthogonalize(jnp.asarray(kernel, jnp.float32), 3)
    # A slope of at most 3.4445^3 = 41, errors of 800 roundings with either sign: 41 * 800^0.5 * 2^-24 = 7e-5.
    np.testing.assert_allclose(ours, polynomial_of_singular_values(kernel, 3), atol=7e-5)
    small = jnp.asarray(kernel[:600].T, jnp.float32)  # as in the paper, to the bit
    assert (muon.orthogonalize(small, 3) == muon._directly(small / (jnp.linalg.norm(small) + muon.EPSILON), 3)).all()


def test_the_scale_of_the_loss_does_not_matter():
    gradient = jnp.asarray(draw(3, 3, 4, 6), jnp.float32)
    np.testing.assert_allclose(muon.orthogonalize(gradient, 3), muon.orthogonalize(gradient / 2048, 3), atol=1e-5)


def test_five_steps_bring_singular_values_near_to_one():
    matrix = muon.orthogonalize(jnp.asarray(draw(3, 3, 4, 6), jnp.float32), 5).reshape(-1, 6)
    values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
    assert 0.6 < values.min() <= values.max() < 1.3
