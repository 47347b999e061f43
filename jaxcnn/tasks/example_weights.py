"""Weights of examples, so that some count more than others in the loss."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.tasks.wrapped import Wrapped

NAME = "example_weights"  # key among the constants of the task


@dataclasses.dataclass(frozen=True)
class Weighted(Wrapped):
    """A loss whose examples have weights, float32 [N] in constants["example_weights"], by index in the training split.

    The step multiplies the loss of each example by its weight, since losses do not know which examples they get. A
    mixed image has the weight of its first one. Evaluation counts every example alike.

    Attributes:
      examples: N.
    """

    examples: int

    def abstract(self) -> dict[str, Any]:
        """The shapes of the constants of the inner loss, and that of the weights."""
        return self.inner.abstract() | {NAME: jax.ShapeDtypeStruct((self.examples,), jnp.float32)}
