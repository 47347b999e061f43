"""The evaluation and prediction steps, pure functions of variables and images."""

from typing import Any

from flax.typing import VariableDict
from jaxtyping import Array, Float32, Num

from jaxcnn.data import augment
from jaxcnn.data.batch import Batch, Constants
from jaxcnn.learn import metrics
from jaxcnn.learn.network import answering
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.tasks.task import Task

Outputs = Float32[Array, "b k"]  # outputs of the network


def eval_step(
    spec: StepSpec, variables: VariableDict, batch: Batch, constants: Constants
) -> tuple[metrics.Sums, Outputs]:
    """Evaluate a batch or a device's shard: sums over examples whose mask is True, and outputs (or `found_in` them)."""
    outputs = predict_step(spec, variables, batch.image, constants)
    return eval_sums(spec.task, outputs, batch, constants), found_in(spec.task, outputs)


def eval_sums(task: Task, outputs: Outputs, batch: Batch, constants: Constants) -> metrics.Sums:
    """Sums over the examples of a batch whose mask is True, from the outputs of the network."""
    return metrics.summed(of_each(task, outputs, batch.target, constants), batch.mask)


def of_each(task: Task, outputs: Outputs, target: Any, constants: Constants) -> dict[str, Float32[Array, " b"]]:
    """The loss and the metrics of each example, from the outputs of the network and the targets of a split."""
    whole = task.targets.whole(target)
    values = task.evaluation.values(outputs, whole, constants)
    return {metrics.LOSS: task.loss.reported(outputs, whole, constants), **values}


def predict_step(
    spec: StepSpec, variables: VariableDict, image: Num[Array, "b h w c"], constants: Constants
) -> Outputs:
    """The outputs of the network for images."""
    return answering(spec).apply(variables, augment.normalize(image, constants.mean, constants.std), train=False)


def answer_step(spec: StepSpec, variables: VariableDict, image: Num[Array, "b h w c"], constants: Constants) -> Outputs:
    """The answers that the task finds in the outputs for images; for most tasks, the outputs themselves."""
    return found_in(spec.task, predict_step(spec, variables, image, constants))


def found_in(task: Task, outputs: Outputs) -> Outputs:
    """The answers that a task finds in the outputs of the network; the outputs if nothing has to be found."""
    return outputs if task.finds is None else task.finds.found(outputs)
