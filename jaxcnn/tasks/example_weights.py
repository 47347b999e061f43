"""Examples that count more or less than others."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

import jaxcnn.config as configuration
from jaxcnn.tasks.task import Facts, Loss, OfEach, Outputs, Settings, Tree

NAME = "example_weights"  # among the constants of the task


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A loss whose examples have weights, float32 [N] in constants["example_weights"], by index in the training split.

    The step multiplies the loss of each example by its weight, since losses do not know which examples they get. A
    mixed image has the weight of its first one. Evaluation counts every example alike.

    Attributes:
      inner: the loss.
      examples: N.
    """

    inner: Loss
    examples: int

    @property
    def plain(self) -> Loss:
        """The plain loss, without weights."""
        return self.inner.plain

    @property
    def settings(self) -> tuple[str, ...]:
        """Those of the inner loss."""
        return self.inner.settings

    def abstract(self) -> dict[str, Any]:
        """Those of the inner loss, and the weights."""
        return self.inner.abstract() | {NAME: jax.ShapeDtypeStruct((self.examples,), jnp.float32)}

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Tree | None
    ) -> dict[str, Any]:
        """Those of the inner loss; the caller adds the weights."""
        return self.inner.constants(config, names, facts, targets)

    def pair(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any) -> tuple[Outputs, Outputs]:
        """Those of the inner loss."""
        return self.inner.pair(outputs, target, settings, constants)

    def losses(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any, image: Any) -> OfEach:
        """Those of the inner loss."""
        return self.inner.losses(outputs, target, settings, constants, image)

    def reported(self, outputs: Outputs, target: Tree, constants: Any) -> OfEach:
        """That of the inner loss."""
        return self.inner.reported(outputs, target, constants)
