"""What a task finds among the outputs of a network, as further operators of its graph.

They are added after a graph has become int8 or float16, so that they always compute in float32 what the run computes.
Boxes are suppressed by ONNX's own NonMaxSuppression, which runtimes have, in place of `suppression.survivors`.
"""

import jax
import numpy as np

from jaxcnn.config import UserError
from jaxcnn.graphs import lowering
from jaxcnn.graphs.graph import Graph
from jaxcnn.tasks import suppression
from jaxcnn.tasks.found_boxes import Detections
from jaxcnn.train.trained import Trained


def check(trained: Trained) -> None:
    """Refuse a task whose network goes on from what it finds. Raises UserError."""
    task = trained.spec.task
    if task.finds is not None and task.finds_boxes is None and task.finds_maps is None:
        raise UserError(
            f"config.task.name={trained.config.task.name!r}: this network finds boxes within itself, which cannot be "
            "written as ONNX; use --format=stablehlo"
        )
    if task.finds_boxes is not None and not isinstance(task.evaluation, Detections):
        raise UserError(
            f"config.task.evaluation={trained.config.task.evaluation!r} has no operators of ONNX; use "
            "--format=stablehlo"
        )
    if isinstance(task.evaluation, Detections) and task.evaluation.rule.softness:
        raise UserError(
            f"config.task.soft_suppression={task.evaluation.rule.softness:g} has no operator of ONNX; use "
            "--format=stablehlo"
        )


def added(graph: Graph, trained: Trained, outputs: jax.ShapeDtypeStruct) -> Graph:
    """The graph of the outputs of a network, with what the task finds among them as its result; in place.

    Args:
      graph: its result are the outputs.
      trained: the network.
      outputs: their shape for one image, and type.
    """
    finds, found_maps = trained.spec.task.finds_boxes, trained.spec.task.finds_maps
    if isinstance(finds, Detections):
        graph.output = _boxes(graph, finds, *outputs.shape)
    elif found_maps is not None:
        lowering.go_on(graph, found_maps.found, outputs)
    return graph


def _boxes(graph: Graph, finds: Detections, places: int, width: int) -> str:
    """`suppression.found_in` for a batch: from answers [b, a, 4 + k] to boxes [b, most, 6]."""
    classes = width - 4
    candidates = min(suppression.CANDIDATES, places * classes)
    boxes, logits = (_columns(graph, graph.output, start, end) for start, end in ((0, 4), (4, width)))
    scores = graph.add("Reshape", graph.add("Sigmoid", logits), graph.constant([0, places * classes], np.int64))
    place = _places_of_largest(graph, scores, candidates)
    best = graph.add("GatherElements", scores, place, axis=1)
    every = graph.constant(classes, np.int64)
    label = graph.add("Cast", graph.add("Mod", place, every), to=lowering.DTYPES["float32"])
    chosen = _rows(graph, boxes, graph.add("Div", place, every), candidates, 4)
    height, breadth = finds.sides
    ends = graph.constant([breadth, height, breadth, height], np.float32)
    cut = graph.add("Min", graph.add("Max", chosen, graph.constant(0.0, np.float32)), ends)

    label = graph.add("Reshape", label, graph.constant([0, candidates, 1], np.int64))
    step = 0.0 if finds.rule.across else 2.0 * max(finds.sides)  # so that boxes of different classes do not touch
    shift = graph.add("Mul", label, graph.constant(step, np.float32))
    one_class = graph.add("Reshape", best, graph.constant([0, 1, candidates], np.int64))
    limits = (
        graph.constant(candidates, np.int64),
        graph.constant(finds.rule.most_overlap, np.float32),
        # The operator wants scores above this one.
        graph.constant(np.nextafter(np.float32(suppression.LEAST_SCORE), np.float32(0)), np.float32),
    )
    stand = graph.add("NonMaxSuppression", graph.add("Add", cut, shift), one_class, *limits)  # image, class, place
    where = graph.add("Gather", stand, graph.constant([0, 2], np.int64), axis=1)
    nothing = graph.add("Mul", best, graph.constant(0.0, np.float32))
    good = graph.add("ScatterND", nothing, where, graph.add("GatherND", best, where))

    most = min(finds.most_found, candidates)
    row = _places_of_largest(graph, good, most)
    kept = graph.add("GatherElements", good, row, axis=1)
    kept = graph.add("Reshape", kept, graph.constant([0, most, 1], np.int64))
    columns = [_rows(graph, each, row, most, size) for each, size in ((cut, 4), (label, 1))]
    found = graph.add("Concat", columns[0], kept, columns[1], axis=2)
    there = graph.add("Greater", kept, graph.constant(0.0, np.float32))
    result = graph.add("Where", there, found, graph.constant(0.0, np.float32))
    pads = graph.constant([0, 0, 0, 0, finds.most_found - most, 0], np.int64)
    return graph.add("Pad", result, pads, graph.constant(0.0, np.float32)) if most < finds.most_found else result


def _columns(graph: Graph, name: str, start: int, end: int) -> str:
    return graph.add("Slice", name, *(graph.constant([each], np.int64) for each in (start, end, 2, 1)))


def _places_of_largest(graph: Graph, name: str, number: int) -> str:
    """The places of the largest values of each row, the largest first, and of equal ones the first."""
    return graph.add("TopK", name, graph.constant([number], np.int64), axis=1)


def _rows(graph: Graph, values: str, which: str, number: int, width: int) -> str:
    """The rows of values [b, n, width] that are named by `which` [b, number]."""
    which = graph.add("Reshape", which, graph.constant([0, number, 1], np.int64))
    which = graph.add("Expand", which, graph.constant([1, 1, width], np.int64))
    return graph.add("GatherElements", values, which, axis=1)
