"""The static part of a run, for which the step is compiled; the other values are traced."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.config import Augment, Config, ConfigError, Model, Norm, Optim, Prune, Schedule
from jaxcnn.data.order import MAX_PLACES
from jaxcnn.machine import plugins
from jaxcnn.tasks import by_name
from jaxcnn.tasks.task import Task

# These are inputs of the step, not parts of the spec, so all specs hold the same value here.
_TRACED: dict[str, Any] = {"learning_rate": 0.0, "weight_decay": 0.0, "momentum": 0.0, "label_smoothing": 0.0}
_NOT_SEEN: dict[str, Any] = {"base_batch_size": 0}  # affects only the traced learning rate


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """Everything that determines the compiled step. Two runs with equal specs share one compilation.

    Attributes:
      global_batch_size: examples per step.
      model, norm, augment, optim, prune, schedule: as in the config; the traced fields of `optim` are blanked.
      task: what the network learns, for the classes of the data set.
      image_shape: (H, W, C).
      image_dtype: type of the pixels.
      train_examples: N, number of examples in the training split.
      total_steps: steps of the whole run.
      shard_optimizer, shard_params: whether each device keeps only a part of these; the mathematics is the same.
      small_side: side in pixels of the training images after augmentation; 0: unchanged.
      shape: height and width of the middle part of the training images that is used; empty: all.
      code: changes when the code of users behind the names of the config changes (`jaxcnn.machine.plugins.token`).
    """

    global_batch_size: int
    model: Model
    norm: Norm
    augment: Augment
    optim: Optim
    schedule: Schedule
    task: Task
    image_shape: tuple[int, int, int]
    train_examples: int
    total_steps: int
    shard_optimizer: bool = False
    shard_params: bool = False
    small_side: int = 0
    shape: tuple[int, ...] = ()
    image_dtype: str = "uint8"
    code: str = ""
    prune: Prune = dataclasses.field(default_factory=Prune)

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every training example is seen once; rarely an integer, as no example is dropped."""
        return self.train_examples / self.global_batch_size

    @property
    def stages(self) -> tuple[tuple[int, "StepSpec"], ...]:
        """The stages of the run, in order: (step at which the stage ends, spec of its steps).

        A run has several if its training images grow (`augment.small_sides`). The last stage is this spec and ends at
        `total_steps`. All stages share one state structure.
        """
        small = [
            (round(share * self.total_steps), dataclasses.replace(self, small_side=side))
            for side, share in zip(self.augment.small_sides, self.augment.small_until, strict=True)
        ]
        return (*small, (self.total_steps, self))

    @property
    def sizes(self) -> tuple["StepSpec", ...]:
        """The specs for each size of images, of which a step takes one (`augment.sides`, `shapes`); else this one."""
        if self.augment.shapes:
            one = dataclasses.replace(self, augment=dataclasses.replace(self.augment, shapes=()))
            return (*(dataclasses.replace(one, shape=shape) for shape in self.augment.shapes), one)
        if not self.augment.sides:
            return (self,)
        one = dataclasses.replace(self, augment=dataclasses.replace(self.augment, sides=()))
        whole = self.image_shape[0]
        return tuple(dataclasses.replace(one, small_side=side if side < whole else 0) for side in self.augment.sides)

    def mean_step(self, figures: Sequence[float]) -> float:
        """The mean over all steps of the run of a figure that is given for one step of each of the `stages`."""
        return float(np.average(figures, weights=np.diff([end for end, _ in self.stages], prepend=0)))


def make_spec(config: Config, *, task: Task, image_shape: tuple[int, int, int], train_examples: int) -> StepSpec:
    """The spec of a config for a task and a data set of this many training examples, with images [H, W, C].

    Raises:
      ConfigError: the run is longer than the order of examples allows.
    """
    steps_per_epoch = train_examples / config.global_batch_size
    total_steps = config.run.steps or steps_of(config.run.epochs, steps_per_epoch, 1)
    if total_steps * config.global_batch_size >= MAX_PLACES:
        raise ConfigError(
            f"{total_steps} steps of config.global_batch_size={config.global_batch_size} are more than the 2^32 "
            "examples that a run can order; reduce config.run.epochs or config.run.steps"
        )
    return StepSpec(
        global_batch_size=config.global_batch_size,
        model=config.model,
        norm=config.norm,
        augment=config.augment,
        optim=dataclasses.replace(config.optim, **_TRACED, **_NOT_SEEN),
        schedule=config.schedule,
        task=task,
        image_shape=image_shape,
        train_examples=train_examples,
        total_steps=total_steps,
        shard_optimizer=config.parallel.shard_optimizer or config.parallel.shard_params,
        shard_params=config.parallel.shard_params,
        image_dtype=config.data.dtype,
        code=plugins.token(config),
        prune=config.prune,
    )


def spec_without_data(config: Config, image_shape: tuple[int, int, int], outputs: int, train_examples: int) -> StepSpec:
    """The spec of a config for so many outputs, classes or numbers, where no data set is open.

    Teachers and weights of examples, which only training uses, are left out.

    Raises:
      ConfigError: as `make_spec`.
    """
    task = by_name.make(config.task, outputs, sides=image_shape[:2], network=config.model.name)
    return make_spec(config, task=task, image_shape=image_shape, train_examples=train_examples)


def steps_of(epochs: float, steps_per_epoch: float, number: int) -> int:
    """The step after which the `number`-th interval of `epochs` epochs is complete (the first has number 1)."""
    return max(number, math.ceil(round(number * epochs * steps_per_epoch, 6)))
