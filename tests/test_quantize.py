"""int8 and float16 networks: the graph, its ranges, and the same integers in ONNX Runtime and in JAX."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from jaxcnn.config import UserError
from jaxcnn.deploy import calibrate, half, onnx_file, runtimes, verify
from jaxcnn.graphs import graph, in_jax, lowering, quantize
from jaxcnn.graphs.quantize import Range
from jaxcnn.machine import instructions
from jaxcnn.serve.service import Service
from jaxcnn.train import assess, trained
from tests import digits, runs, small, test_deploy


def of_jax(made, images, shown=()):
    run = jax.jit(in_jax.function(made, "image", shown))
    return jax.device_get(run.lower(images).compile(small.UNOPTIMISED)(images))


NETWORKS = ("resnet20: padded shortcuts", "squeezenet1_1: joined channels")


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_and_float16_graphs_compute_the_network_and_int8_is_the_same_in_onnx_runtime_and_in_jax(name):
    function, side = test_deploy.network(name)
    images = np.random.default_rng(1).normal(size=(3, side, side, 3)).astype(np.float32)
    made = graph.simplified(lowering.lower(function, jax.ShapeDtypeStruct((side, side, 3), jnp.float32), "image"))
    (plain,) = test_deploy.session_of(made, (side, side, 3)).run(None, {"image": images})
    quantize.without_empty_pads(made)
    sources = sorted(set(quantize.places(made).values()))
    seen = of_jax(made, images, [*sources, made.output])
    # The two runtimes sum in other orders; test_deploy.TOLERANCE is for that.
    assert np.abs(seen[made.output] - plain).max() <= test_deploy.TOLERANCE * plain.std()
    ranges = {each: Range(float(seen[each].min()), float(seen[each].max())) for each in sources}
    whole = quantize.quantized(made, ranges)
    kernels = [node.inputs[1] for node in whole.nodes if node.op in quantize.PRODUCTS]
    assert kernels and all(whole.constants[whole.maker(each).inputs[0]].dtype == np.int8 for each in kernels)
    # Without fusion ONNX Runtime computes each operator by itself in float32, as the file says.
    (exact,) = session(whole, side, fuse=False).run(None, {"image": images})
    assert 0 < np.abs(exact - plain).max() < 0.3 * plain.std()
    # Sums of up to 2^24 are exact in float32 too, so both differ only by the rounding of the logits' bias and scale.
    assert np.abs(of_jax(whole, images) - exact).max() <= test_deploy.TOLERANCE * plain.std()
    # float16 has 11 bits: its rounding is 2^13 times that of float32, for which TOLERANCE is.
    (halves,) = session(half.halved(made), side).run(None, {"image": images})
    assert 0 < np.abs(halves - plain).max() <= 2**13 * 1e-5 * plain.std()


def session(made, side, fuse=True, path=None):
    model = test_deploy.model_of(made, (side, side, 3))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_EXTENDED if fuse else level.ORT_DISABLE_ALL
    if path is not None:
        options.optimized_model_filepath = str(path)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", ["resnet20: padded shortcuts", "efficientnet_lite0: depthwise, ReLU6"])
def test_onnx_runtime_computes_every_convolution_and_residual_sum_in_integers(name, tmp_path):
    function, side = test_deploy.network(name)
    made = graph.simplified(lowering.lower(function, jax.ShapeDtypeStruct((side, side, 3), jnp.float32), "image"))
    quantize.without_empty_pads(made)
    places = quantize.places(made)
    limited = {node.output for node in made.nodes if node.op in quantize.LIMITS}
    ranges = {each: Range(0.0 if each in limited else -3.0, 3.0) for each in places.values()}
    session(quantize.quantized(made, ranges), side, path=tmp_path / "fused.onnx")
    ops = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    before = [node.op for node in made.nodes]
    assert ops.count("QLinearConv") == before.count("Conv") and "Conv" not in ops
    assert ops.count("QLinearAdd") == before.count("Add") and ops.count("QGemm") == before.count("Gemm") == 1


def test_ranges_are_the_extremes_or_leave_out_what_is_rare():
    counts = np.zeros(calibrate.BINS)
    counts[: calibrate.BINS // 4] = 1000  # and one value at the far end
    counts[-1] = 1
    percentile = calibrate._percentile(counts, 0.0, 8.0)
    assert percentile.low == 0.0 and percentile.high == pytest.approx(2.0, abs=8 / calibrate.BINS)
    least = calibrate._least_error(counts, 0.0, 8.0)
    assert 2.0 <= least.high < 8.0 and least.low == 0.0
    assert Range(0.0, 2.55).zero == 0 and Range(0.0, 2.55).scale == np.float32(0.01)
    assert Range(-1.0, 3.0).zero == 64 and Range(1.0, 2.0).zero == 0  # 0 is always a value
    kernel = np.array([[[[1.0]]], [[[-0.5]]], [[[0.0]]]], np.float32)
    codes, scales = quantize.int8_of(kernel, 0)
    assert codes.reshape(-1).tolist() == [127, -127, 0] and np.all(scales > 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantize")
    digits.run(folder / "run")
    with small.programs_kept():
        network, _ = trained.load(folder / "run", "last", "", 1)
    splits = {name: assess.open_split(network, folder / "run", name, "")[0] for name in ("train", "val", "test")}
    for method in calibrate.METHODS:
        made = onnx_file.int8_graph_of(network, splits["train"], 200, method)
        onnx_file.write_graph(made, network, folder / f"{method}.onnx", quantize="int8")
    return network, splits, folder


@pytest.mark.parametrize("method", calibrate.METHODS)
def test_an_int8_file_answers_nearly_as_its_run_and_alike_in_both_runtimes(run, method, kept_programs):
    network, splits, folder = run
    path = folder / f"{method}.onnx"
    verdict = verify.verify(network, runtimes.of_file(path), splits["val"], 64, runtimes.of_run(network))
    accuracy = {name: (of_run, of_file) for name, of_run, of_file in verdict.figures}["top1_accuracy"]
    # Of 200 images of a network of 40 steps, two may change sides.
    assert verdict.agreement >= 0.99 and abs(accuracy[0] - accuracy[1]) < 2.5 / 200
    # Kernels take a quarter of the bytes; what the file tells of itself, and the names of its tensors, are the rest.
    assert 0 < verdict.difference < verdict.scale and verdict.size < 0.7 * verdict.beside[0]
    assert "beside float32" in verdict.lines()[-1]
    images = np.asarray(splits["val"].read(np.arange(64)))
    found = [runtimes.of_file(path, in_jax=each).call(images) for each in (False, True)]
    np.testing.assert_allclose(*found, atol=test_deploy.TOLERANCE)


def test_the_test_split_and_networks_that_find_boxes_within_are_refused(run):
    network, splits, _ = run
    with pytest.raises(UserError, match="not taken from the test split"):
        onnx_file.int8_graph_of(network, splits["test"], 8, "minmax")
    task = SimpleNamespace(finds=object(), finds_boxes=None, finds_maps=None, evaluation=SimpleNamespace(search={}))
    boxes = SimpleNamespace(spec=dataclasses.replace(network.spec, task=task), config=network.config)
    with pytest.raises(UserError, match=r"finds boxes within itself, .*: its file is float32; leave --quantize out"):
        onnx_file.int8_graph_of(boxes, splits["train"], 8, "minmax")
    with pytest.raises(UserError, match=r"its file is float32; leave --quantize out"):
        onnx_file.half_graph_of(boxes)


def test_a_server_answers_by_a_file_of_its_run_and_by_no_other(run):
    network, splits, folder = run
    file = runtimes.of_file(folder / "mse.onnx")
    service = Service(network, 4, 1.0, file)
    assert len(service.answers([service.decode(png(np.asarray(splits["val"].read(np.arange(1)))[0]))])) == 1
    other = dataclasses.replace(file, facts={**file.facts, "step": 7})
    with pytest.raises(UserError, match="--file was not made of this run: its step is 7, here it is 40"):
        Service(network, 4, 1.0, other)


def png(pixels):
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(content, "png")
    return content.getvalue()


def test_what_the_processor_has_for_int8_is_told():
    told = "processor : 0\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n"
    assert instructions.of_int8(told) == ["AMX", "AVX-512 VNNI"]
    assert instructions.of_int8(told.replace("avx512_vnni amx_int8", "")) == []


def test_the_command_writes_verifies_and_times_an_int8_file(run, tmp_path):
    _, _, folder = run
    flags = (f"--workdir={folder}/run", f"--out={tmp_path}/a.onnx", "--format=onnx", "--quantize=int8")
    code, output = runs.run(
        *flags, "--calibration=minmax", "--calibration_images=200", "--verify", module="jaxcnn.export"
    )
    assert code == 0 and "int8, ranges by minmax" in output and "for int8" in output and "beside float32" in output
    assert json.loads(onnx.load(tmp_path / "a.onnx").metadata_props[-2].value) == "train"
    (tmp_path / "config.json").write_text("{}")  # as in the folder of a run
    (tmp_path / "a.onnx.verified.json").unlink()
    code, output = runs.run(
        f"--file={tmp_path}/a.onnx", "--runtime=jax", "--seconds=0", "--batches=2", module="jaxcnn.latency"
    )
    assert code == 0 and "JAX on cpu, by a.onnx" in output
    assert "; the report leaves it out until jaxcnn.export --verify" in output and "for the report in" not in output
    code, output = runs.run(flags[0], "--format=stablehlo", "--quantize=int8", module="jaxcnn.export")
    assert code == 2 and "--quantize=int8 is for --format=onnx" in output.splitlines()[-1]
