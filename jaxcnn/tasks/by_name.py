"""Makes the task that a config names."""

from collections.abc import Sequence

import numpy as np

import jaxcnn.config as configuration
from jaxcnn.config import UserError
from jaxcnn.config.networks import TWO_STAGE, YOLOX
from jaxcnn.tasks import (
    box_records,
    classification,
    detection,
    found_boxes,
    found_in_stages,
    found_instances,
    instances,
    monitor,
    multilabel,
    own,
    regions,
    regression,
    segmentation,
    two_stage,
    weights,
)
from jaxcnn.tasks.classes import Classes, numbers_as_names
from jaxcnn.tasks.distillation import Distilled, Teacher
from jaxcnn.tasks.example_weights import Weighted
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.suppression import Rule
from jaxcnn.tasks.task import Evaluation, Facts, Loss, Targets, Task

Sides = tuple[int, int]  # height and width
_ANY: Sides = (32, 32)  # sides for uses in which nothing depends on them


def make(
    config: configuration.Task,
    outputs: int,
    teacher: Teacher | None = None,
    weighted: int = 0,
    *,
    sides: Sides = _ANY,
    network: str = "",
) -> Task:
    """The task of a config.

    Args:
      config: the group `config.task`.
      outputs: number of outputs of the network: of classes, or of numbers.
      teacher: a trained network from which this one also learns.
      weighted: number of training examples if they have weights, else 0.
      sides: height and width of the images, which targets and answers with places need.
      network: name of the network, which tells whether a detector has one stage or two, and whether objectness.
    """
    of_labels = loss(config, outputs, sides, network)
    used = of_labels if teacher is None else Distilled(of_labels, teacher)
    used = Weighted(used, weighted) if weighted else used
    return Task(targets(config, outputs, sides), used, evaluation(config, outputs, sides, network))


def targets(config: configuration.Task, outputs: int, sides: Sides = _ANY) -> Targets:
    """The kind of targets of a config; `sides` is only needed for the `spec` of targets that have a size."""
    if config.name == "multilabel":
        return multilabel.LabelSets(outputs)
    if config.name == "regression":
        return regression.Quantities(outputs)
    if config.name == "detection":
        return detection.Boxes(outputs, config.most_boxes)
    if config.name == "instances":
        return instances.Instances(outputs, config.most_boxes, config.mask_side)
    if config.name == "segmentation":
        return segmentation.LabelMaps(outputs, sides)
    return Classes(outputs)


def names(
    config: configuration.Task, known: tuple[str, ...], labels: Sequence[np.ndarray], title: str
) -> tuple[str, ...]:
    """The names of the outputs of a set.

    Args:
      config: the group `config.task`.
      known: the names of its classes, or of its columns of labels; empty if it has none.
      labels: if it has none, the labels of its base splits, [n] or [n, k].
      title: name of the set, for messages.

    Raises:
      UserError: the labels are not those of such a task.
    """
    columns = labels[0].shape[1] if labels and labels[0].ndim == 2 else 0
    if any(each.ndim == 3 for each in labels):
        if config.name != "segmentation":
            raise UserError(f"{title} has a class for each pixel; set config.task.name='segmentation'")
        return known or segmentation.numbers_as_names(labels)
    if config.name == "regression" and not columns:
        if known and known != tuple(map(str, range(len(known)))) and len(known) > 1:
            raise UserError(
                f"{title} has class names, such as {known[0]!r}, but config.task.name='regression' needs numbers; "
                "list the images in a table with a column of numbers (config.data.source='csv:…')"
            )
        return known if len(known) == 1 else ("value",)
    if known:
        return known
    if any(each.dtype.names for each in labels):
        if config.name not in ("detection", "instances"):
            raise UserError(f"{title} has boxes; set config.task.name='detection'")
        return box_records.numbers_as_names(labels, title)
    return tuple(map(str, range(columns))) if columns else numbers_as_names(labels, title)


def loss(config: configuration.Task, outputs: int, sides: Sides = _ANY, network: str = "") -> Loss:
    """The loss of a config: that of the task or that of the user."""
    of_task = _loss(config, outputs, sides, network)
    return own.loss(config.loss, of_task, outputs) if config.loss else of_task


def _loss(config: configuration.Task, outputs: int, sides: Sides = _ANY, network: str = "") -> Loss:
    weighted, focal = weights.is_weighted(config), config.focal_gamma > 0
    if config.name == "multilabel":
        return multilabel.BinaryCrossEntropy(outputs, weighted, focal)
    if config.name == "regression":
        return regression.StandardizedError(outputs, config.error)
    if config.name == "detection":
        if network in TWO_STAGE:
            return two_stage.TwoStageLoss(sides)
        return detection.DetectionLoss(outputs, sides, network in YOLOX)
    if config.name == "instances":
        return instances.InstanceLoss(sides)
    if config.name == "segmentation":
        return segmentation.PixelCrossEntropy(outputs, weighted, config.dice_share > 0)
    return classification.CrossEntropy(outputs, weighted, focal, config.logit_adjustment > 0, config.generalized_q > 0)


def evaluation(config: configuration.Task, outputs: int, sides: Sides = _ANY, network: str = "") -> Evaluation:
    """The evaluation of a config: that of the task, or that of the user or one with the user's figures added."""
    found = _evaluation(config, outputs, sides, network)
    if config.evaluation:
        found = own.evaluation(config.evaluation, found, _loss(config, outputs), targets(config, outputs))
    return monitor.deciding(found, config)


def _evaluation(config: configuration.Task, outputs: int, sides: Sides = _ANY, network: str = "") -> Evaluation:
    if config.name == "multilabel":
        return multilabel.SetFigures()
    if config.name == "regression":
        return regression.Errors()
    if config.name == "detection":
        common = sides, config.most_found, _rule(config)
        if network in TWO_STAGE:
            return found_in_stages.FoundInStages(*common)
        return found_boxes.Detections(*common, classes=outputs, has_objectness=network in YOLOX)
    if config.name == "instances":
        return found_instances.FoundInstances(sides, config.most_found, _rule(config))
    if config.name == "segmentation":
        return regions.Regions()
    return classification.Accuracy(config.specificity)


def _rule(config: configuration.Task) -> Rule:
    return Rule(config.most_overlap, config.soft_suppression, config.suppress_across)


def headline(config: configuration.Task) -> Headline:
    """The figure that decides; it does not depend on the number of outputs."""
    return evaluation(config, 2).headline


def remark(config: configuration.Task, facts: Facts, outputs: Sequence[str]) -> str:
    """A remark if the figure that decides is ruled by one of several numbers; else empty.

    Args:
      config: the group `config.task`.
      facts: facts of the targets of the training split (`Targets.facts`).
      outputs: names of the outputs.
    """
    return "" if config.name != "regression" or config.monitor else regression.unlike_units(facts, outputs)


def settings(config: configuration.Task) -> dict[str, float]:
    """The settings of the loss, by name: the numbers of a config that are inputs of the step."""
    names = (*loss(config, 2).settings, *(Distilled.OWN_SETTINGS if config.teacher else ()))
    return {name: getattr(config, name) for name in names}
