"""SavedModels and files of LiteRT answer as the run does, and damaged ones are refused."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import UserError
from jaxcnn.data.tensorflow import import_tensorflow
from jaxcnn.deploy import in_tensorflow, onnx_file, runtimes, tensorflow_files
from jaxcnn.graphs import graph, in_jax, lowering, quantize
from jaxcnn.train import assess, trained
from tests import digits, runs, small
from tests.test_deploy import NETWORKS, TOLERANCE, network


def graph_of(name):
    function, side = network(name)
    image = jax.ShapeDtypeStruct((side, side, 3), jnp.float32)
    return graph.simplified(lowering.lower(function, image, "image"), True), side


def in_lite(content, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    interpreter.resize_tensor_input(0, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, images)
    interpreter.invoke()
    return interpreter, interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("name", NETWORKS)
def test_tensorflow_computes_the_graph_of_a_network(name):
    made, side = graph_of(name)
    images = np.random.default_rng(1).normal(size=(3, side, side, 3)).astype(np.float32)
    expected = np.asarray(jax.jit(in_jax.function(made, "image")).lower(images).compile(small.UNOPTIMISED)(images))
    found = in_tensorflow.function(made, "image")(import_tensorflow().constant(images)).numpy()
    assert np.abs(found - expected).max() <= TOLERANCE * expected.std()


def test_a_file_of_int8_computes_in_litert_what_the_int8_graph_is():
    made, side = graph_of("efficientnet_lite0: depthwise, ReLU6")
    images = np.random.default_rng(1).normal(size=(8, side, side, 3)).astype(np.float32)
    quantize.without_empty_pads(made)
    names = sorted(set(quantize.places(made).values()))
    seen = jax.jit(in_jax.function(made, "image", names)).lower(images).compile(small.UNOPTIMISED)(images)
    ranges = {each: quantize.Range(float(value.min()), float(value.max())) for each, value in seen.items()}
    whole = quantize.quantized(made, ranges)
    expected = np.asarray(jax.jit(in_jax.function(whole, "image")).lower(images).compile(small.UNOPTIMISED)(images))
    interpreter, found = in_lite(tensorflow_files.lite_of(whole, (side, side, 3), "float32", "int8"), images)
    # A value at the middle of two codes may go to either, by the last bit of its float32; so may what is made of it.
    assert np.abs(found - expected).mean() <= 0.05 * expected.std()
    assert np.abs(found - expected).max() <= 0.3 * expected.std()
    kernels = [
        each for each in interpreter.get_tensor_details() if len(each["shape"]) == 4 and "FakeQuant" in each["name"]
    ]
    whole_kernels = sum(node.op == "Conv" for node in whole.nodes)
    scaled = [each for each in kernels if len(each["quantization_parameters"]["scales"]) > 1]
    assert len(scaled) >= whole_kernels and all(each["dtype"] is np.int8 for each in scaled), "int8, a scale a channel"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, its validation split, and the folder of both."""
    folder = tmp_path_factory.mktemp("tensorflow")
    digits.run(folder / "run")
    with small.programs_kept():
        made, _ = trained.load(folder / "run", "last", "", 1)
    return made, assess.open_split(made, folder / "run", "val", "")[0], folder


def test_a_saved_model_answers_as_the_run_and_a_changed_one_is_refused(run, kept_programs):
    made, split, folder = run
    tensorflow_files.write_saved_model(onnx_file.graph_of(made), made, folder / "saved")
    runtime = runtimes.of_file(folder / "saved")
    images = np.asarray(split.read(np.arange(50)))
    expected = made.outputs(split, 50)[:50]
    assert np.abs(runtime.call(images) - expected).max() <= TOLERANCE * expected.std()
    assert runtime.call(images[:1]).shape == (1, 10) and runtime.facts["class_names"] == list(made.class_names)
    shutil.copytree(folder / "saved", folder / "changed")
    file = folder / "changed" / tensorflow_files.NETWORK
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        UserError, match=r"saved_model.pb is not the file that jaxcnn.json tells of; export the run again"
    ):
        runtimes.of_file(folder / "changed")
    with pytest.raises(UserError, match=r"cannot be read: No such file"):
        runtimes.of_file(folder)


@pytest.mark.parametrize(("kind", "points"), [("none", TOLERANCE), ("float16", 0.01)])
def test_a_file_of_litert_answers_as_the_run(run, kind, points, kept_programs):
    """The weights of float16 are rounded by up to 2^-11, through five layers."""
    made, split, folder = run
    more = {} if kind == "none" else {"quantize": kind}
    tensorflow_files.write_lite(onnx_file.graph_of(made), made, folder / f"{kind}.tflite", **more)
    runtime = runtimes.of_file(folder / f"{kind}.tflite")
    images, expected = np.asarray(split.read(np.arange(50))), made.outputs(split, 50)[:50]
    assert np.abs(runtime.call(images) - expected).max() <= points * expected.std()
    assert np.array_equal(runtime.call(images[:3]), runtime.call(images[:3])) and runtime.name == "LiteRT on cpu"
    assert runtime.facts.get("quantize", "none") == kind


def test_the_command_writes_an_int8_file_of_litert_and_verifies_it(run):
    _, _, folder = run
    flags = (f"--workdir={folder}/run", "--format=tflite", "--quantize=int8", f"--out={folder}/a.tflite")
    code, output = runs.run(*flags, "--verify", module="jaxcnn.export")
    assert code == 0 and "verified in LiteRT on cpu on 200 examples:" in output and "beside float32: " in output, output
    (same,) = [line for line in output.splitlines() if "the same largest logit for" in line]
    assert float(same.rpartition("for ")[2].rstrip("%")) >= 97
    flags = (f"--workdir={folder}/run", "--format=tflite", "--quantize=whole_int8", f"--out={folder}/whole.tflite")
    code, output = runs.run(*flags, "--calibration_images=100", "--verify", module="jaxcnn.export")
    assert code == 0 and "integers alone, int8 in and out" in output and "beside float32: " in output, output
    (same,) = [line for line in output.splitlines() if "the same largest logit for" in line]
    assert float(same.rpartition("for ")[2].rstrip("%")) >= 95
    facts = runtimes.of_file(folder / "whole.tflite").facts
    assert (
        facts["input"].startswith("image: int8 [batch, 8, 8, 1], round(pixel / ") and facts["input_quantization"][0] > 0
    )
    grey = np.asarray([[[[0], [255]]]], np.uint8)
    codes = tensorflow_files._as_int8(grey, {"quantization": (1.0, -128)})
    assert codes.ravel().tolist() == [-128, 127]
    for wrong, told in (
        (
            ("--format=savedmodel", "--quantize=int8"),
            "--quantize=int8 is for --format=onnx, --format=tflite and --format=web",
        ),
        (
            ("--format=savedmodel", f"--out={folder}/run"),
            f"--out={folder}/run is not empty, and holds no SavedModel; give",
        ),
        (
            ("--format=tflite", f"--out={folder}/a.lite"),
            f"--out={folder}/a.lite: the name of such a file must end with .tflite",
        ),
    ):
        code, output = runs.run(f"--workdir={folder}/run", *wrong, module="jaxcnn.export")
        assert code == 2 and told in output.splitlines()[-1], output
