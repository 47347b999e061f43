"""Tasks: what the answer for an image is, how wrong an output is, and which figures are reported."""

from jaxcnn import config as configuration
from jaxcnn.tasks import classification, multilabel, regression, weights
from jaxcnn.tasks.classes import Classes
from jaxcnn.tasks.task import Collector, Evaluation, Headline, Loss, Settings, Targets, Task

__all__ = [
    "Collector",
    "Evaluation",
    "Headline",
    "Loss",
    "Settings",
    "Targets",
    "Task",
    "evaluation",
    "make",
    "targets",
]


def make(config: configuration.Task, outputs: int) -> Task:
    """The task of a config.

    Args:
      config: the group `config.task`.
      outputs: number of outputs of the network: of classes, or of numbers.
    """
    return Task(targets(config, outputs), loss(config, outputs), evaluation(config))


def targets(config: configuration.Task, outputs: int) -> Targets:
    """The kind of the targets."""
    if config.name == "multilabel":
        return multilabel.LabelSets(outputs)
    if config.name == "regression":
        return regression.Quantities(outputs)
    return Classes(outputs)


def loss(config: configuration.Task, outputs: int) -> Loss:
    """The loss."""
    weighted, focal = weights.is_weighted(config), config.focal_gamma > 0
    if config.name == "multilabel":
        return multilabel.BinaryCrossEntropy(outputs, weighted, focal)
    if config.name == "regression":
        return regression.StandardizedError(outputs, config.error)
    return classification.CrossEntropy(outputs, weighted, focal, config.logit_adjustment > 0)


def evaluation(config: configuration.Task) -> Evaluation:
    """The figures that are reported."""
    if config.name == "multilabel":
        return multilabel.SetFigures()
    if config.name == "regression":
        return regression.Errors()
    return classification.Accuracy()


def settings(config: configuration.Task) -> dict[str, float]:
    """The numbers of a config that are inputs of the step, by name: those that the loss uses."""
    return {name: getattr(config, name) for name in loss(config, 2).settings}
