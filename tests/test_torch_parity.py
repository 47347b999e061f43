"""The networks compute what PyTorch computes: logits, gradients, running statistics and five SGD steps.

`goldens/torch_goldens.npz` holds PyTorch's side, in float64 (`goldens/make_torch_goldens.py` makes it). The networks
run here in float64 too, where a difference of rounding is far from any other.
"""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from jaxcnn import config, models
from tests.small import UNOPTIMISED

GOLDENS = pathlib.Path(__file__).with_name("goldens")
sys.path.insert(0, str(GOLDENS))
import draw  # noqa: E402

# float64 rounds at 1.1e-16. Sums of up to 10^4 terms and some 150 layers one after another, some of them BatchNorm that
# divides by a small standard deviation, make that at most 1e-16 * 1e4 * 1e2 = 1e-10 (measured: 1e-12).
# One operation in float32 anywhere would show: it rounds at 6e-8.
TOLERANCE = 1e-9
# A step multiplies a difference by up to about ten (measured on ResNet50, 8e-11 after five).
TOLERANCE_AFTER_STEPS = 1e-8


@functools.cache
def goldens() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "torch_goldens.npz") as file:
        return dict(file)


def build(case: str, dtype, width: float = draw.WIDTH) -> tuple:
    """The module of a case, its variables and its batch."""
    fields, side = (draw.CASES | draw.FORWARD_CASES | draw.FAMILY_CASES)[case]
    model = config.Model(width=width, **fields)
    module = models.build(model, config.Norm(), draw.CLASSES).clone(dtype=dtype)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    variables = {
        collection: traverse_util.unflatten_dict(
            {
                path: jnp.asarray(draw.leaf(case, collection, path, shape.shape), dtype)
                for path, shape in traverse_util.flatten_dict(tree, sep="/").items()
            },
            sep="/",
        )
        for collection, tree in shapes.items()
    }
    images, labels = draw.batch(case, side)
    return module, variables, jnp.asarray(images, dtype), jnp.asarray(labels)


def make_step(module, optimizer):
    def loss_fn(params, batch_stats, images, labels):
        logits, updates = module.apply(
            {"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"]
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, (logits, updates.get("batch_stats", {}))

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def step(params, batch_stats, opt_state, images, labels):
        (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            params, batch_stats, images, labels
        )
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), batch_stats, opt_state, loss, logits, gradients

    return step


def fingerprints(tree) -> np.ndarray:
    flat = traverse_util.flatten_dict(tree, sep="/")
    return np.array([draw.fingerprint(path, np.asarray(flat[path])) for path in sorted(flat)])


def assert_fingerprints(ours: np.ndarray, theirs: np.ndarray, paths: list[str], message: str, tolerance: float) -> None:
    """Equal to the tolerance times each leaf's norm, or times the largest norm / 1e3 where a leaf is nearly 0."""
    assert ours.shape == theirs.shape, message
    if not theirs.size:
        return
    scale = np.maximum(theirs[:, 0], theirs[:, 0].max() * 1e-3)
    errors = np.abs(ours - theirs).max(axis=1) / scale
    worst = int(errors.argmax())
    assert errors[worst] < tolerance, f"{message} of {paths[worst]} differ by {errors[worst]:.1e} of their norm"


@pytest.mark.parametrize("case", draw.CASES)
def test_networks_compute_what_pytorch_computes(case):
    theirs = {key.split("/")[1]: value for key, value in goldens().items() if key.startswith(case + "/")}
    with jax.enable_x64(True):
        module, variables, images, labels = build(case, jnp.float64)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        param_paths = sorted(traverse_util.flatten_dict(params, sep="/"))
        stats_paths = sorted(traverse_util.flatten_dict(batch_stats, sep="/"))

        logits = jax.jit(module.apply, compiler_options=UNOPTIMISED)(variables, images)
        assert logits.dtype == jnp.float64
        np.testing.assert_allclose(logits, theirs["logits_eval"], rtol=TOLERANCE, atol=TOLERANCE)

        optimizer = optax.chain(
            optax.add_decayed_weights(draw.SGD["weight_decay"], mask=is_kernel),
            optax.sgd(draw.SGD["learning_rate"], draw.SGD["momentum"], nesterov=True),
        )
        step = make_step(module, optimizer)
        opt_state = optimizer.init(params)
        losses = []
        for i in range(draw.STEPS):
            params, batch_stats, opt_state, loss, logits, gradients = step(
                params, batch_stats, opt_state, images, labels
            )
            losses.append(float(loss))
            if i == 0:
                np.testing.assert_allclose(logits, theirs["logits_train"], rtol=TOLERANCE, atol=TOLERANCE)
                assert_fingerprints(fingerprints(gradients), theirs["gradients"], param_paths, "gradients", TOLERANCE)
        tolerance = TOLERANCE_AFTER_STEPS
        np.testing.assert_allclose(losses, theirs["losses"], rtol=tolerance)
        assert_fingerprints(fingerprints(params), theirs["params"], param_paths, "parameters after steps", tolerance)
        assert_fingerprints(
            fingerprints(batch_stats), theirs["batch_stats"], stats_paths, "running statistics", tolerance
        )


@pytest.mark.parametrize("case", ["alexnet_cifar_bn", "resnet50_cifar", *draw.FORWARD_CASES])
def test_float32_rounds_what_float64_computes(case):
    module, variables, images, _ = build(case, jnp.float32)
    logits = jax.jit(module.apply)(variables, images)
    assert logits.dtype == jnp.float32
    theirs = goldens()[f"{case}/logits_eval"]
    # Rounding at 6e-8 of sums of up to 10^3 terms in up to 54 layers, if all of it added up as random signs do:
    # 6e-8 * sqrt(1e3 * 54) = 1.4e-5 of the largest logit.
    np.testing.assert_allclose(logits, theirs, atol=1.4e-5 * np.abs(theirs).max())


def is_kernel(params):
    return traverse_util.path_aware_map(lambda path, _: path[-1] == "kernel", params)


@functools.cache
def family_goldens() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "family_goldens.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", draw.FAMILY_CASES)
def test_networks_with_weights_in_the_world_compute_what_their_libraries_compute(case):
    compare_family(case, case in draw.WITH_GRADIENTS)


def compare_family(case: str, with_gradients: bool) -> None:
    """Hold the logits of a case of `draw.FAMILY_CASES`, and all its gradients if wanted, against the goldens."""
    theirs = {key.split("/")[1]: value for key, value in family_goldens().items() if key.startswith(case + "/")}
    with jax.enable_x64(True):
        module, variables, images, labels = build(case, jnp.float64, width=1.0)

        def loss_fn(params):
            logits, _ = module.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

        @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
        def compute(variables):
            logits = {"logits_eval": module.apply(variables, images)}
            if not with_gradients:
                return logits, None
            gradients, logits["logits_train"] = jax.grad(loss_fn, has_aux=True)(variables["params"])
            return logits, gradients

        logits, gradients = compute(variables)
        for name, ours in logits.items():
            scale = np.abs(theirs[name]).max()
            np.testing.assert_allclose(ours, theirs[name], rtol=TOLERANCE, atol=TOLERANCE * scale)
        if gradients is not None:
            paths = sorted(traverse_util.flatten_dict(variables["params"], sep="/"))
            assert_fingerprints(fingerprints(gradients), theirs["gradients"], paths, "gradients", TOLERANCE)
