"""Tasks: what the answer for an image is, how wrong an output is, and which figures are reported."""

from jaxcnn import config as configuration
from jaxcnn.tasks.classes import Classes
from jaxcnn.tasks.classification import Accuracy, CrossEntropy
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
    return Task(targets(config, outputs), CrossEntropy(), evaluation(config))


def targets(config: configuration.Task, outputs: int) -> Targets:
    """The kind of the targets."""
    return Classes(outputs)


def evaluation(config: configuration.Task) -> Evaluation:
    """The figures that are reported."""
    return Accuracy()
