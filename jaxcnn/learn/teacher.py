"""A trained network as the teacher of another one (`jaxcnn.tasks.distillation`)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from jaxcnn.data import augment
from jaxcnn.data.batch import Constants
from jaxcnn.learn.network import answering
from jaxcnn.learn.step_spec import StepSpec


@dataclasses.dataclass(frozen=True)
class TrainedTeacher:
    """A trained network; its constants are {"variables": Flax variables, "mean": [C], "std": [C]}.

    Attributes:
      spec: the spec that it was trained with.
    """

    spec: StepSpec

    def abstract(self) -> dict[str, Any]:
        """The shapes of the teacher's constants."""
        image = jax.ShapeDtypeStruct((1, *self.spec.image_shape), jnp.float32)
        variables = jax.eval_shape(answering(self.spec).init, jax.random.key(0), image)
        channel = jax.ShapeDtypeStruct((self.spec.image_shape[-1],), jnp.float32)
        return {"variables": {"batch_stats": {}, **variables}, "mean": channel, "std": channel}

    def outputs(self, constants: Constants, of_teacher: Any, image: Float32[Array, "b h w c"]) -> Float32[Array, "b k"]:
        """The teacher's outputs for images that are normalised by `constants`."""
        pixels = augment.denormalize(image, constants.mean, constants.std)
        own = augment.normalize(pixels, of_teacher["mean"], of_teacher["std"])
        return answering(self.spec).apply(of_teacher["variables"], own, train=False)
