"""ONNX files: written by the `onnx` package from our own graph."""

import pathlib

import jax

import jaxcnn
from jaxcnn.config import UserError
from jaxcnn.deploy import lowering, predictor, runtimes
from jaxcnn.deploy.graph import Graph, simplified
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
    predict = predictor.of(predictor.in_float32(trained))
    return simplified(lowering.lower(predict, _image(trained), predictor.INPUT), fold)


def _image(trained: Trained, batch: int = 0) -> jax.ShapeDtypeStruct:
    """The shape and type of an image as stored, or of a batch of them."""
    shape = trained.spec.image_shape
    return jax.ShapeDtypeStruct((batch, *shape) if batch else shape, trained.spec.image_dtype)


def write(trained: Trained, path: pathlib.Path, fold: bool = True) -> int:
    """Write a network; return the number of operators.

    Args:
      trained: the network.
      path: the file.
      fold: let convolutions have BatchNorm in their kernels.

    Raises:
      UserError: it has an operation that cannot be written, or the file cannot be.
    """
    extras.need("onnx", "--format=onnx", "onnx")
    import onnx
    from onnx import helper, numpy_helper

    graph = graph_of(trained, fold)
    shape: list[str | int | None] = ["batch", *trained.spec.image_shape]
    image_type = lowering.DTYPES[trained.spec.image_dtype]
    nodes = [
        helper.make_node(
            node.op, node.inputs, [predictor.OUTPUT if node.output == graph.output else node.output], **node.attributes
        )
        for node in graph.nodes
    ]
    found = jax.eval_shape(predictor.of(predictor.in_float32(trained)), _image(trained, batch=1))
    outputs: list[str | int | None] = ["batch", *found.shape[1:]]
    made = helper.make_graph(
        nodes,
        trained.config.model.name,
        [helper.make_tensor_value_info(predictor.INPUT, image_type, shape)],
        [helper.make_tensor_value_info(predictor.OUTPUT, lowering.DTYPES[str(found.dtype)], outputs)],
        [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jaxcnn",
        producer_version=jaxcnn.__version__,
    )
    helper.set_model_props(model, predictor.facts(trained) | {"sha256": runtimes.NO_DIGEST})
    if model.ByteSize() > MOST:
        raise UserError(f"{shown(str(path))} would be larger than 2 GiB, which a file of ONNX cannot be")
    onnx.checker.check_model(model, full_check=True)
    try:
        whole_files.write(path, runtimes.sealed(model.SerializeToString(deterministic=True)))
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be written: {error.strerror}") from error
    return len(nodes)
