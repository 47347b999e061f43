"""ONNX files: written by the `onnx` package from our own graph, and read again."""

import json
import pathlib
from typing import Any

import jax
import numpy as np

import jaxcnn
from jaxcnn.config import UserError
from jaxcnn.data.batch import Split
from jaxcnn.deploy import calibrate, digest, finding, half, predictor
from jaxcnn.graphs import lowering, quantize
from jaxcnn.graphs.graph import Graph, Node, simplified
from jaxcnn.graphs.tensor import DTYPES
from jaxcnn.learn import quantized
from jaxcnn.machine import extras, whole_files
from jaxcnn.text import shown
from jaxcnn.train.trained import Trained

OPSET, IR_VERSION = 18, 9  # of December 2022: ONNX Runtime reads them from version 1.14 on
MOST = 2**31 - 1  # bytes of a file of protobuf


def graph_of(trained: Trained, fold: bool = True) -> Graph:
    """The graph of a network, in float32.

    Raises:
      UserError: it has an operation that cannot be written.
    """
    return _with_answers(_outputs_of(trained, fold), trained)


def _outputs_of(trained: Trained, fold: bool = True) -> Graph:
    """The graph from images to the outputs of a network, or to what it finds within itself, in float32."""
    finding.check(trained)
    predict, leaves = predictor.of_leaves(predictor.in_float32(trained), find=finding.is_within(trained))
    return simplified(lowering.lower(lambda image: predict(image, *leaves), _image(trained), predictor.INPUT), fold)


def _with_answers(graph: Graph, trained: Trained) -> Graph:
    """A graph of outputs, in whichever types, with what the task finds among them."""
    if trained.spec.task.finds is None or finding.is_within(trained):
        return graph
    predict, leaves = predictor.of_leaves(predictor.in_float32(trained), find=False)
    outputs = jax.eval_shape(predict, _image(trained, batch=1), *leaves)
    return finding.added(graph, trained, jax.ShapeDtypeStruct(outputs.shape[1:], outputs.dtype))


def _image(trained: Trained, batch: int = 0) -> jax.ShapeDtypeStruct:
    """The shape and type of an image as stored, or of a batch of them."""
    shape = trained.spec.image_shape
    return jax.ShapeDtypeStruct((batch, *shape) if batch else shape, trained.spec.image_dtype)


def int8_graph_of(trained: Trained, split: Split, images: int, method: str) -> Graph:
    """The graph of a network with int8 products (`jaxcnn.graphs.quantize`), with ranges that are measured.

    Args:
      trained: the network.
      split: training or validation images, from which the ranges of activations are taken.
      images: how many of them.
      method: one of `calibrate.METHODS`.

    Raises:
      UserError: it has an operation that cannot be written, or nothing that can be int8.
    """
    made = _to_quantize(trained)
    ranges = calibrate.ranges(made, quantize.sources(made), split, images, method)
    return _with_answers(quantize.quantized(made, ranges), trained)


def trained_int8_graph_of(trained: Trained) -> Graph:
    """The graph with int8 products of a network that was trained for them (`jaxcnn.learn.quantized`), with its ranges.

    Raises:
      UserError: the run is at step 0, where it has none.
    """
    made = _to_quantize(trained)
    ends = np.asarray(jax.device_get(trained.variables["batch_stats"][quantized.RANGES][quantized.ENDS]))
    if not ends.any():
        raise UserError("this run was not trained yet, so it has no ranges for int8; train it")
    sources = quantize.sources(made)
    # Of float32, so that scales are computed as in training.
    ranges = {name: quantize.Range(*pair) for name, pair in zip(sources, ends, strict=True)}
    return _with_answers(quantize.quantized(made, ranges, trained.spec.optim.quantized), trained)


def _to_quantize(trained: Trained) -> Graph:
    """The graph in float32 of the outputs of a network whose products can be int8."""
    finding.check_products(trained)
    made = _folded_as_trained(trained) if trained.spec.optim.quantized else _outputs_of(trained)
    quantize.without_empty_pads(made)
    return made


def _folded_as_trained(trained: Trained) -> Graph:
    """`_outputs_of` a network of quantisation-aware training, with BatchNorm folded in float32, as that does."""
    finding.check(trained)
    predict, leaves = predictor.of_leaves(predictor.in_float32(trained), find=False)
    graph = Graph()

    def constants(leaves: list[Any]) -> dict[str, Any]:
        nonlocal graph
        graph = simplified(lowering.lower(predict, _image(trained), predictor.INPUT, leaves))
        return {name: value for name, value in graph.constants.items() if isinstance(value, jax.Array)}

    found = jax.device_get(jax.jit(constants)(leaves))
    graph.constants |= found
    return graph


def half_graph_of(trained: Trained) -> Graph:
    """The graph of a network in float16.

    Raises:
      UserError: it has an operation that cannot be written, or a number that is too large.
    """
    finding.check_products(trained)
    return _with_answers(half.halved(_outputs_of(trained)), trained)


def write(trained: Trained, path: pathlib.Path, fold: bool = True) -> int:
    """Write a network in float32; return the number of operators.

    Args:
      trained: the network.
      path: the file.
      fold: let convolutions have BatchNorm in their kernels.

    Raises:
      UserError: it has an operation that cannot be written, or the file cannot be.
    """
    return write_graph(graph_of(trained, fold), trained, path)


def write_graph(graph: Graph, trained: Trained, path: pathlib.Path, **more: Any) -> int:
    """Write the graph of a network with its facts, and `more` of them; return the number of operators.

    Raises:
      UserError: the file cannot be written.
    """
    import onnx
    from onnx import helper, numpy_helper

    shape: list[str | int | None] = ["batch", *trained.spec.image_shape]
    image_type = DTYPES[trained.spec.image_dtype]
    name = predictor.output_name(trained)
    renamed = {graph.output: name}
    nodes = [
        helper.make_node(node.op, node.inputs, [renamed.get(each, each) for each in node.outputs], **node.attributes)
        for node in graph.nodes
    ]
    found = jax.eval_shape(predictor.of(predictor.in_float32(trained)), _image(trained, batch=1))
    outputs: list[str | int | None] = ["batch", *found.shape[1:]]
    made = helper.make_graph(
        nodes,
        trained.config.model.name,
        [helper.make_tensor_value_info(predictor.INPUT, image_type, shape)],
        [helper.make_tensor_value_info(name, DTYPES[str(found.dtype)], outputs)],
        [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jaxcnn",
        producer_version=jaxcnn.__version__,
    )
    helper.set_model_props(
        model,
        predictor.facts(trained)
        | {name: json.dumps(value) for name, value in more.items()}
        | {"sha256": digest.NO_DIGEST},
    )
    if model.ByteSize() > MOST:
        raise UserError(f"{shown(str(path))} would be larger than 2 GiB, which a file of ONNX cannot be")
    onnx.checker.check_model(model, full_check=True)
    try:
        whole_files.write(path, digest.sealed(model.SerializeToString(deterministic=True)))
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be written: {error.strerror}") from error
    return len(nodes)


def read(path: pathlib.Path, content: bytes) -> tuple[Graph, dict[str, str]]:
    """The graph in the bytes of a file of `write_graph`, and its facts as JSON texts.

    Raises:
      UserError: it is not one that jaxcnn writes.
    """
    extras.need("onnx", f"reading {shown(path.name)}")
    import onnx
    from onnx import helper, numpy_helper

    try:
        model = onnx.load_model_from_string(content)
        made, facts = model.graph, {each.key: each.value for each in model.metadata_props}
        nodes = [
            Node(
                each.op_type,
                list(each.input),
                each.output[-1],
                {a.name: helper.get_attribute_value(a) for a in each.attribute},
            )
            for each in made.node
        ]
        constants = {each.name: numpy_helper.to_array(each) for each in made.initializer}
        output = made.output[0].name
    except Exception as error:  # of protobuf or numpy
        raise UserError(f"{shown(str(path))} cannot be read as ONNX; export the run again") from error
    return Graph(nodes, constants, output), facts
