"""Distillation: a network learns from the outputs of a trained network, its teacher, and from the labels."""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from jaxcnn.tasks.task import OfEach, Outputs, Settings, Tree
from jaxcnn.tasks.wrapped import Wrapped


class Teacher(Protocol):
    """A trained network, static in the compiled step; its variables are constants of the task."""

    def abstract(self) -> Any:
        """The shapes of the teacher's constants."""
        ...

    def outputs(self, constants: Any, of_teacher: Any, image: Float32[Array, "b h w c"]) -> Outputs:
        """The teacher's outputs for images normalised by `constants`; `of_teacher` are the teacher's own constants."""
        ...


@dataclasses.dataclass(frozen=True)
class Distilled(Wrapped):
    """A loss whose part settings["teacher_share"] is the divergence from the class distribution of a teacher.

    The divergence is that of distributions at settings["temperature"] (Hinton et al. 2015, arXiv 1503.02531).

    The teacher gets the images that the network gets, with the same augmentation (Beyer et al. 2021, arXiv 2106.05237).

    Attributes:
      inner: the loss for the labels.
      teacher: the trained network.
    """

    OWN_SETTINGS: ClassVar[tuple[str, ...]] = ("temperature", "teacher_share")

    teacher: Teacher

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of the inner loss, the temperature, and the teacher's share."""
        return (*self.inner.settings, *self.OWN_SETTINGS)

    def abstract(self) -> dict[str, Any]:
        """The shapes of the constants of the inner loss and of the teacher."""
        return self.inner.abstract() | {"teacher": self.teacher.abstract()}

    def losses(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any, image: Any) -> OfEach:
        """The training loss of each example: the losses for labels and teacher, weighted by the teacher's share."""
        of_labels = self.inner.losses(outputs, target, settings, constants, image)
        theirs = jax.lax.stop_gradient(self.teacher.outputs(constants, constants.task["teacher"], image))
        share, temperature = settings["teacher_share"], settings["temperature"]
        of_teacher = divergence(outputs, theirs, temperature)
        return (1.0 - share) * of_labels + share * of_teacher


def divergence(outputs: Outputs, theirs: Outputs, temperature: Float32[Array, ""]) -> OfEach:
    """The Kullback-Leibler divergence from the network's to the teacher's distribution, times the squared temperature.

    Args:
      outputs: logits of the network.
      theirs: logits of the teacher.
      temperature: divides both logits.
    """
    mine = jax.nn.log_softmax(outputs / temperature)
    wanted = jax.nn.log_softmax(theirs / temperature)
    return jnp.sum(jnp.exp(wanted) * (wanted - mine), axis=-1) * jnp.square(temperature)
