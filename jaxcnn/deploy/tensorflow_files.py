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
SIGNATURE = "serving_default"
MOST = 2**31 - 1  # bytes of the constants of a graph, which is one message of protobuf

Call = Callable[[np.ndarray], np.ndarray]


def write_saved_model(graph: Graph, trained: Trained, folder: pathlib.Path) -> None:
    """Write a SavedModel with one signature, from `image` to `logits` or what the task finds, for any batch size.

    Args:
      graph: of the network, in float32.
      trained: the network.
      folder: new or empty.

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
      graph: of float32; for int8, one of `jaxcnn.graphs.quantize`, whose ranges the file has.
      trained: the network.
      path: the file.
      more: facts; "quantize" is that of the graph, or float16, the type of weights alone. None if it is missing.

    Raises:
      UserError: the converter refuses it, or the file cannot be written.
    """
    content = lite_of(graph, trained.spec.image_shape, trained.spec.image_dtype, more.get("quantize", "none"))
    beside.write(path, content, predictor.facts(trained) | {name: json.dumps(value) for name, value in more.items()})


def lite_of(graph: Graph, shape: tuple[int, ...], dtype: str, quantize: str) -> bytes:
    """The bytes of a file of LiteRT.

    Args:
      graph: of the network.
      shape, dtype: of an image.
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
    try:
        with _silence():
            return bytes(converter.convert())
    except Exception as error:  # of MLIR, with a trace of many lines
        lines = [line.rpartition("error: ")[2] for line in str(error).splitlines() if line.strip()]
        why = lines[0] if lines else type(error).__name__
        raise UserError(f"TensorFlow cannot write this network for LiteRT ({why[:200]}); use --format=onnx") from error


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
      threads: of LiteRT; 0: one per core.

    Raises:
      UserError: it cannot be read, or was changed.
    """
    extras.need("litert", f"running {shown(path.name)}")
    from ai_edge_litert.interpreter import Interpreter

    content, facts = beside.read(path)
    interpreter = Interpreter(model_content=content, num_threads=threads or os.cpu_count())
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape: list[tuple[int, ...]] = []

    def run(images: np.ndarray) -> np.ndarray:
        if shape != [images.shape]:
            interpreter.resize_tensor_input(image["index"], images.shape)
            interpreter.allocate_tensors()
            shape[:] = [images.shape]
        interpreter.set_tensor(image["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(output["index"])

    return run, facts
