"""Quantisation-aware training rounds as the exported int8 network does, and that network answers as it was trained."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config as configs
from jaxcnn.config import ConfigError, UserError
from jaxcnn.deploy import onnx_file, runtimes
from jaxcnn.graphs import graph, in_jax, lowering, quantize, rounding
from jaxcnn.learn import quantized
from jaxcnn.learn.features import features_step
from jaxcnn.learn.network import check_quantized
from jaxcnn.train import assess, exported, seals, trained
from jaxcnn.weights import files
from tests import digits, runs, small, test_deploy, test_quantize
from tests.test_step import TOLERANCE

pytestmark = pytest.mark.unoptimised

ENDS = f"batch_stats/{quantized.RANGES}/{quantized.ENDS}"
DRAWN = np.random.default_rng(0)


@pytest.mark.parametrize(("bits", "axis"), [(8, 0), (4, 3), (2, 0)])
def test_weights_are_rounded_to_the_bits_of_the_export_and_have_its_gradient(bits, axis):
    kernel = DRAWN.normal(size=(5, 4, 3, 7)).astype(np.float32)
    kernel[0] = 0
    codes, scales = quantize.int8_of(kernel, axis, bits)
    found = rounding.weights(jnp.asarray(kernel), axis, bits)
    assert np.abs(codes).max() == quantize.most_of(bits) == 2 ** (bits - 1) - 1
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_array_equal(found.scale, scales)
    factors = DRAWN.normal(size=kernel.shape).astype(np.float32)
    grad = jax.grad(lambda kernel: jnp.sum(rounding.weights(kernel, axis, bits).value() * factors))(kernel)
    np.testing.assert_allclose(grad, factors, rtol=2**-22)  # times and over a scale: two roundings of 2^-24


def rounded(x, ends):
    found = rounding.activations(x, ends)
    return {"codes": found.codes, "scale": found.scale, "value": found.value()}


@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.7), (0.0, 5.1), (0.5, 3.0), (-2.0, -1.0), (0.0, 0.0)])
def test_activations_are_rounded_to_the_bits_of_the_export_and_have_no_gradient_outside_their_range(low, high):
    ends, x = np.array([low, high], np.float32), DRAWN.uniform(-4, 6, 500).astype(np.float32)
    found = jax.jit(rounded)(x, ends)
    within = quantize.Range(*ends)
    if low == high:  # nothing is known yet
        np.testing.assert_array_equal(found["value"], x)
        return
    scale, zero = jax.jit(rounding.scale_and_zero)(*ends)
    assert scale == found["scale"] == within.scale and zero == within.zero
    code = np.rint(x / within.scale) + within.zero
    np.testing.assert_array_equal(found["codes"], np.clip(code, 0, 255) - within.zero)
    grad = jax.jit(jax.grad(lambda x: jnp.sum(rounded(x, ends)["value"])))(x)
    np.testing.assert_allclose(grad, (code >= 0) & (code <= 255), rtol=2**-22)


def test_the_gradient_of_a_rounded_product_is_that_of_its_rounded_factors():
    x, kernel, bias = (DRAWN.normal(size=shape).astype(np.float32) for shape in ((6, 5), (5, 4), (4,)))
    made = graph.Graph()
    made.output = made.add("Gemm", "x", *(made.constant(jnp.asarray(each)) for each in (kernel, bias)))
    ends, of_y = jnp.array([[-1.0, 1.0]]), DRAWN.normal(size=(6, 4)).astype(np.float32)

    def loss(x, kernel, bias):
        constants = dict(zip(made.constants, (kernel, bias), strict=True))
        whole = rounding.rounded(dataclasses.replace(made, constants=constants), ends, 4)
        return jnp.sum(in_jax.function(whole, "x")(x) * of_y)

    found = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(x, kernel, bias)
    seen = jax.jit(lambda x: rounding.activations(x, ends[0]).value())(x)
    weights = jax.jit(lambda kernel: rounding.weights(kernel, 1, 4).value())(kernel)
    inside = np.abs(x) <= 1  # but for half a step at the ends
    np.testing.assert_allclose(
        np.where(inside, found[0], 0), np.where(inside, of_y @ weights.T, 0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(found[0][np.abs(x) > 1 + 1 / 127], 0)
    np.testing.assert_allclose(found[1], seen.T @ of_y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[2], of_y.sum(axis=0), rtol=1e-5)


def test_the_graph_that_is_trained_answers_with_the_bits_of_the_integers_that_are_exported():
    function, side = test_deploy.network("resnet20: padded shortcuts")
    made = graph.simplified(lowering.lower(function, jax.ShapeDtypeStruct((side, side, 3), jnp.float32), "image"))
    quantize.without_empty_pads(made)
    ends = np.array([[-2.5, 3.5] for _ in quantize.sources(made)], np.float32)
    images = DRAWN.normal(size=(2, side, side, 3)).astype(np.float32)
    ranges = {name: quantize.Range(*pair) for name, pair in zip(quantize.sources(made), ends, strict=True)}
    exported = test_quantize.of_jax(quantize.quantized(made, ranges), images)
    # Sums are below 2^24: 144 products of at most 255 * 127.
    np.testing.assert_array_equal(test_quantize.of_jax(rounding.rounded(made, ends, 8), images), exported)
    assert exported.std() > 0.01


BITS = 4


def training(source, **optim):
    return {"init": {"source": f"workdir:{source}"}, "optim": {"learning_rate": 0.002, "quantized": BITS} | optim}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run, and one that goes on from it with rounded weights."""
    folder = tmp_path_factory.mktemp("quantized")
    digits.run(folder / "plain")
    digits.run(folder / "run", **training(folder / "plain", ema_decay=0.8))
    return folder


def loaded(folder, weights="last"):
    with small.programs_kept():
        network, _ = trained.load(folder, "last", weights, 1)
        split = assess.open_split(network, folder, "val", "")[0]
        return network, split, network.outputs(split, 200)


def test_a_run_trains_what_rounding_takes_and_its_statistics_of_batch_norm_stay(run):
    (network, split, _), (before, _, _) = loaded(run / "run"), loaded(run / "plain", "ema")  # from which a run starts
    begun = seals.on_host(before.variables)
    for name, each in seals.on_host(network.variables).items():
        if name == ENDS:
            assert np.all(each[:, 1] > 0) and np.all(each[:, 0] <= 0) and np.any(each[:, 0] < 0)
        else:
            assert np.array_equal(each, begun[name]) == name.startswith("batch_stats")
    ranges = {quantized.RANGES: network.variables["batch_stats"][quantized.RANGES]}
    untrained = {**before.variables, "batch_stats": {**before.variables["batch_stats"], **ranges}}
    with small.programs_kept():
        rounded_only = dataclasses.replace(network, variables=untrained).evaluate(split)
        assert network.evaluate(split)["loss"] < rounded_only["loss"]


def test_an_exported_run_has_its_ranges_and_answers_as_it_does_in_both_runtimes(run, tmp_path):
    network, split, outputs = loaded(run / "run")
    made = onnx_file.trained_int8_graph_of(network)
    kernels = [made.constants[made.maker(n.inputs[1]).inputs[0]] for n in made.nodes if n.op in quantize.PRODUCTS]
    assert len(kernels) == 4 and all(each.dtype == np.int8 and np.abs(each).max() == 7 for each in kernels)
    onnx_file.write_graph(made, network, tmp_path / "a.onnx", quantize="int8")
    images = np.asarray(split.read(np.arange(len(split))))
    for runs_in_jax in (True, False):
        found = runtimes.of_file(tmp_path / "a.onnx", in_jax=runs_in_jax).call(images)
        # To the bit, but where an activation lies between two codes up to its last bit: at most a few of 0.4
        # million, each of which moves the outputs of its image by one step of 255 of one of hundreds of products.
        assert np.mean(np.any(found != outputs, axis=1)) < 0.05
        assert np.abs(found - outputs).max() < 0.02 * outputs.std()


def test_features_and_weight_files_are_those_of_the_network_without_rounding(run, tmp_path):
    network, split, _ = loaded(run / "run")
    step = functools.partial(features_step, network.spec, "", network.variables)
    assert jax.eval_shape(step, np.asarray(split.read(np.arange(2))), network.constants).shape == (2, 16)
    count = exported.write(network, "jaxcnn", tmp_path / "a.safetensors")
    arrays, _ = files.read(tmp_path / "a.safetensors")
    assert count == len(arrays) and arrays.keys() == seals.on_host(network.variables).keys() - {ENDS}


def test_a_run_resumes_to_the_bit(run, tmp_path):
    groups = training(run / "plain", ema_decay=0.8)
    digits.run_up_to(20, tmp_path / "parts", **groups)
    shutil.copytree(tmp_path / "parts", tmp_path / "copy")
    digits.run(tmp_path / "copy", **groups)
    for weights in ("last", "ema"):
        whole, copy = (seals.on_host(loaded(each, weights)[0].variables) for each in (run / "run", tmp_path / "copy"))
        assert whole.keys() == copy.keys() and ENDS in whole
        for name, each in whole.items():
            np.testing.assert_array_equal(copy[name], each)


def test_devices_and_microbatches_do_not_change_the_ranges_or_the_training():
    groups = {"optim": {"learning_rate": 0.01, "quantized": 8}, "norm": {"group_size": 4}}
    alone, state = small.train(small.config(**groups), 1, steps=3, optimised=False)
    groups["optim"] = groups["optim"] | {"accumulate_steps": 2}
    losses, other = small.train(small.config(**groups), 2, steps=3, optimised=False)
    ends, others = (each.batch_stats[quantized.RANGES][quantized.ENDS] for each in (state, other))
    np.testing.assert_allclose(losses, alone, rtol=TOLERANCE)
    np.testing.assert_allclose(others, ends, rtol=TOLERANCE)


def test_ranges_are_means_at_first_and_then_a_moving_average():
    stats = {"bn": {"mean": jnp.ones(2)}, quantized.RANGES: {quantized.ENDS: jnp.zeros((1, 2))}}
    for step, (low, high) in enumerate([(-1.0, 2.0), (0.0, 4.0), (-2.0, 0.0)]):
        seen = {quantized.RANGES: {quantized.ENDS: jnp.array([[-low, high]])}}
        stats = quantized.tracked(stats, seen, jnp.int32(step))
    np.testing.assert_allclose(stats[quantized.RANGES][quantized.ENDS], [[-1.0, 2.0]], rtol=1e-6)
    seen = {quantized.RANGES: {quantized.ENDS: jnp.array([[1.0, 102.0]])}}
    late = quantized.tracked(stats, seen, jnp.int32(10**6))
    np.testing.assert_allclose(late[quantized.RANGES][quantized.ENDS], [[-1.0, 3.0]], rtol=1e-5)
    assert late["bn"] is stats["bn"]


def test_what_does_not_fit_is_refused_in_one_line(run):
    def wrong(**groups):
        (line,) = configs.check(dataclasses.replace(digits.config(**groups)))
        return line

    on = {"quantized": 8}
    assert "config.optim.quantized=1 is the number of bits" in wrong(optim={"quantized": 1})
    assert "leave config.model.dtype='bfloat16' out" in wrong(optim=on, model={"dtype": "bfloat16"})
    assert "set config.model.dropout=0" in wrong(optim=on, model={"dropout": 0.5})
    assert "set config.parallel.model_devices=1" in wrong(optim=on, parallel={"model_devices": 2, "devices": 2})
    assert "config.optim.quantized must be at most 8" in wrong(optim={"quantized": 9})
    spec = small.spec_of(small.config(optim=on))
    check_quantized(spec, drawn=False)
    with pytest.raises(ConfigError, match="keeps the running statistics of BatchNorm, so it trains a trained network"):
        check_quantized(spec, drawn=True)
    network, _, _ = loaded(run / "run")
    stats = {**network.variables["batch_stats"], quantized.RANGES: {quantized.ENDS: np.zeros((6, 2), np.float32)}}
    with pytest.raises(UserError, match="this run was not trained yet"):
        onnx_file.trained_int8_graph_of(
            dataclasses.replace(network, variables={**network.variables, "batch_stats": stats})
        )


def test_the_command_writes_what_was_trained_and_nothing_that_answers_otherwise(run, tmp_path):
    flags = (f"--workdir={run}/run", f"--out={tmp_path}/a.onnx", "--format=onnx")
    code, output = runs.run(*flags, "--quantize=int8", "--verify", module="jaxcnn.export")
    assert code == 0 and "int8, weights of 4 bits and ranges as they were trained" in output
    assert "the same largest logit for 100.00%" in output
    code, output = runs.run(*flags, module="jaxcnn.export")
    assert code == 2 and "give --format=onnx --quantize=int8" in output.splitlines()[-1]
    code, output = runs.run(*flags, "--quantize=int8", "--calibration=mse", module="jaxcnn.export")
    assert code == 2 and "--calibration: this run was trained with its ranges" in output.splitlines()[-1]
