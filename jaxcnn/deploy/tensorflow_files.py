"""SavedModels of TensorFlow, and files of LiteRT (.tflite), both from our own graph.

A SavedModel is a folder, whose facts are in `jaxcnn.json`; beside a file of LiteRT lies <file>.json. Both have the
SHA-256 of the network, by which a damaged one is refused.
"""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.data.tensorflow import import_tensorflow
from jaxcnn.deploy import beside, in_tensorflow, predictor
from jaxcnn.graphs.graph import Graph
from jaxcnn.machine import extras
from jaxcnn.text import shown
from jaxcnn.train.trained import Trained

NETWORK, FACTS = "saved_model.pb", "jaxcnn.json"
INT8, WHOLE_INT8 = "int8", "whole_int8"
SIGNATURE = "serving_default"
MOST = 2**31 - 1  # bytes of the constants of a graph, which is one message of protobuf

Call = Callable[[np.ndarray], np.ndarray]


def write_saved_model(graph: Graph, trained: Trained, folder: pathlib.Path) -> None:
    """Write a SavedModel with one signature, from `image` to `logits` or what the task finds, for any batch size.

    Args:
      graph: graph of the network in float32.
      trained: the network.
      folder: a new or empty folder.

    Raises:
      UserError: it cannot be written.
    """
    tf = import_tensorflow()
    output = predictor.output_name(trained)
    signature = _predict(tf, graph, trained.spec.image_shape, trained.spec.image_dtype, output)
    try:
        tf.saved_model.save(tf.Module(), str(folder), signatures={SIGNATURE: signature})
        beside.seal(folder / NETWORK, folder / FACTS, predictor.facts(trained))
    except OSError as error:
        raise UserError(f"{shown(str(folder))} cannot be written: {error.strerror}") from error


def write_lite(graph: Graph, trained: Trained, path: pathlib.Path, **more: Any) -> None:
    """Write a file of LiteRT, from images as stored to logits, for any batch size.

    Args:
      graph: graph in float32; for int8, one from `jaxcnn.graphs.quantize`, whose ranges the file gets.
      trained: the network.
      path: the file.
      more: facts; "quantize" is that of the graph, or float16, the type of weights alone. None if it is missing.

    Raises:
      UserError: the converter refuses it, or the file cannot be written.
    """
    content = lite_of(graph, trained.spec.image_shape, trained.spec.image_dtype, more.get("quantize", "none"))
    beside.write(path, content, predictor.facts(trained) | {name: json.dumps(value) for name, value in more.items()})


def write_whole_int8(
    graph: Graph, trained: Trained, path: pathlib.Path, images: Iterator[np.ndarray], **more: Any
) -> None:
    """Write a file of LiteRT that computes in integers alone: int8 pixels in, int8 outputs out.

    The ranges of all tensors are the smallest and largest value that TensorFlow's converter sees in these images. The
    facts tell the scale and zero point of input and output: a pixel p is round(p / scale) + zero.

    Args:
      graph: graph of the network in float32, with BatchNorm folded.
      trained: the network, for images of uint8.
      path: the file.
      images: batches of training images.
      more: facts.

    Raises:
      UserError: images have more than 8 bits, LiteRT has no int8 for an operator, or the file cannot be written.
    """
    shape, dtype = trained.spec.image_shape, trained.spec.image_dtype
    if dtype != "uint8":
        raise UserError(f"--quantize={WHOLE_INT8} is for images of uint8, which int8 can hold, not {dtype}; use int8")
    tf = import_tensorflow()
    function = _predict(tf, graph, shape, "float32")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    seen = list(images)  # the converter may ask for them more than once
    converter.representative_dataset = lambda: ([each[None].astype(np.float32)] for batch in seen for each in batch)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content = _converted(converter, f"as integers alone; use --quantize={INT8}, which leaves some layers float32")
    interpreter = _interpreter(content, 1)
    left = [each["name"] for each in interpreter.get_tensor_details() if each["dtype"] == np.float32]
    if left:
        raise UserError(
            f"LiteRT has no int8 for a layer of this network ({shown(left[0])[:150]}); use --quantize={INT8}, which "
            "leaves such layers float32"
        )
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    (scale, zero), size = given["quantization"], ", ".join(map(str, shape))
    told = {
        "input": f"{predictor.INPUT}: int8 [batch, {size}], round(pixel / {scale:.9g}) {zero:+}; normalised inside",
        "input_quantization": given["quantization"],
        "output_quantization": found["quantization"],
    }
    facts = {name: json.dumps(value) for name, value in (more | told).items()}
    beside.write(path, content, predictor.facts(trained) | facts)


def lite_of(graph: Graph, shape: tuple[int, ...], dtype: str, quantize: str) -> bytes:
    """The bytes of a file of LiteRT.

    Args:
      graph: graph of the network.
      shape, dtype: shape and type of an image.
      quantize: "none", "float16" or "int8".

    Raises:
      UserError: the converter refuses it.
    """
    tf = import_tensorflow()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_predict(tf, graph, shape, dtype)], tf.Module())
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return _converted(converter, "for LiteRT; use --format=onnx")


def _converted(converter: Any, how: str) -> bytes:
    """The bytes of a file of LiteRT; `how` it should have been written, in words."""
    try:
        with _silence():
            return bytes(converter.convert())
    except Exception as error:  # of MLIR, with a trace of many lines
        lines = [line.rpartition("error: ")[2] for line in str(error).splitlines() if line.strip()]
        why = shown(lines[0])[:200] if lines else type(error).__name__
        what, _, advice = how.partition("; ")
        raise UserError(f"TensorFlow cannot write this network {what} ({why}); {advice}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the remarks that the converter, which is C++, writes to standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _predict(tf: Any, graph: Graph, shape: tuple[int, ...], dtype: str, output: str = predictor.OUTPUT) -> Any:
    """The function of TensorFlow from images to what is called `output`, traced for any batch size."""
    size = sum(value.nbytes for value in graph.constants.values())
    if size > MOST:
        raise UserError(f"the weights have {size:,} bytes; a graph of TensorFlow holds at most 2 GiB")
    run = in_tensorflow.function(graph, predictor.INPUT)
    image = tf.TensorSpec([None, *shape], dtype, name=predictor.INPUT)
    return tf.function(lambda image: {output: run(image)}, autograph=False).get_concrete_function(image)


def read_saved_model(folder: pathlib.Path) -> tuple[Call, dict[str, Any], int]:
    """The function of a SavedModel in TensorFlow on the CPU, its facts, and its bytes.

    Raises:
      UserError: it cannot be read, or was changed.
    """
    content, facts = beside.read(folder / NETWORK, folder / FACTS)
    tf = import_tensorflow()
    loaded = tf.saved_model.load(str(folder))
    call = loaded.signatures[SIGNATURE]

    def run(images: np.ndarray) -> np.ndarray:
        (output,) = call(**{predictor.INPUT: tf.constant(images)}).values()
        return output.numpy()

    run.loaded = loaded  # type: ignore[attr-defined]  # which would be forgotten, and the function with it
    return run, facts, len(content)


def read_lite(path: pathlib.Path, threads: int) -> tuple[Call, dict[str, Any]]:
    """The function of a file in LiteRT on the CPU, and its facts.

    Args:
      path: the file.
      threads: threads of LiteRT; 0: one per core.

    Raises:
      UserError: it cannot be read, or was changed.
    """
    extras.need("litert", f"running {shown(path.name)}")
    content, facts = beside.read(path)
    interpreter = _interpreter(content, threads or os.cpu_count() or 1)
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape: list[tuple[int, ...]] = []

    def run(images: np.ndarray) -> np.ndarray:
        if shape != [images.shape]:
            interpreter.resize_tensor_input(image["index"], images.shape)
            interpreter.allocate_tensors()
            shape[:] = [images.shape]
        interpreter.set_tensor(image["index"], _as_int8(images, image) if image["dtype"] == np.int8 else images)
        interpreter.invoke()
        found = interpreter.get_tensor(output["index"])
        if output["dtype"] != np.int8:
            return found
        scale, zero = output["quantization"]
        return (found.astype(np.float32) - np.float32(zero)) * np.float32(scale)

    return run, facts


def _as_int8(images: np.ndarray, image: Any) -> np.ndarray:
    """Pixels as the codes of a file with int8 input."""
    scale, zero = image["quantization"]
    return np.clip(np.rint(images / np.float32(scale)) + zero, -128, 127).astype(np.int8)


def _interpreter(content: bytes, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=content, num_threads=threads)
