"""What a task finds among the outputs of a network, as further operators of its graph.

They are added after a graph has become int8 or float16, so that they always compute in float32 what the run computes.
A network that goes on from what it finds, such as Mask R-CNN, has them in its own graph, which is float32 then.
"""

import jax

from jaxcnn.config import UserError
from jaxcnn.graphs import lowering
from jaxcnn.graphs.graph import Graph
from jaxcnn.tasks.found_boxes import Detections
from jaxcnn.tasks.task import FindingWithin
from jaxcnn.train.trained import Trained


def check(trained: Trained) -> None:
    """Refuse what ONNX has no operator for. Raises UserError."""
    evaluation = trained.spec.task.evaluation
    if trained.spec.task.finds_boxes is not None and not isinstance(evaluation, Detections):
        raise UserError(
            f"config.task.evaluation={trained.config.task.evaluation!r} has no operators of ONNX; use "
            "--format=stablehlo"
        )
    if isinstance(evaluation, Detections) and evaluation.rule.softness:
        raise UserError(
            f"config.task.soft_suppression={evaluation.rule.softness:g} has no operator of ONNX; use --format=stablehlo"
        )


def is_within(trained: Trained) -> bool:
    """Whether the network finds within itself, and goes on from that."""
    return isinstance(trained.spec.task.evaluation, FindingWithin)


def check_products(trained: Trained) -> None:
    """Refuse int8 and float16 of a network that finds within itself. Raises UserError."""
    if is_within(trained):
        raise UserError(
            f"config.model.name={trained.config.model.name!r} finds boxes within itself, which int8 and float16 would "
            "move: its file is float32; leave --quantize out"
        )


def added(graph: Graph, trained: Trained, outputs: jax.ShapeDtypeStruct) -> Graph:
    """The graph of the outputs of a network, with what the task finds among them as its result; in place.

    Args:
      graph: its result are the outputs.
      trained: the network.
      outputs: their shape for one image, and type.
    """
    finds = trained.spec.task.finds
    if finds is not None:
        lowering.go_on(graph, finds.found, outputs)
    return graph
