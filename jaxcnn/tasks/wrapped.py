"""A base class for losses that wrap another loss."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jaxcnn.config as configuration
from jaxcnn.tasks.task import Facts, Loss, OfEach, Outputs, Settings, Tree


@dataclasses.dataclass(frozen=True)
class Wrapped:
    """A loss that does what the inner loss does, except for what a subclass changes.

    Attributes:
      inner: the wrapped loss.
    """

    inner: Loss

    @property
    def plain(self) -> Loss:
        """As in `Loss`: the plain loss of the inner loss."""
        return self.inner.plain

    @property
    def settings(self) -> tuple[str, ...]:
        """As in `Loss`: the names of the settings of the inner loss."""
        return self.inner.settings

    def abstract(self) -> dict[str, Any]:
        """As in `Loss`: the shapes of the constants of the inner loss."""
        return self.inner.abstract()

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Tree | None
    ) -> dict[str, Any]:
        """As in `Loss`: the constants of the inner loss; a subclass adds its own."""
        return self.inner.constants(config, names, facts, targets)

    def pair(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any) -> tuple[Outputs, Outputs]:
        """As in `Loss`: the outputs and targets that the inner loss compares."""
        return self.inner.pair(outputs, target, settings, constants)

    def losses(self, outputs: Outputs, target: Tree, settings: Settings, constants: Any, image: Any) -> OfEach:
        """As in `Loss`: the inner training loss of each example."""
        return self.inner.losses(outputs, target, settings, constants, image)

    def reported(self, outputs: Outputs, target: Tree, constants: Any) -> OfEach:
        """As in `Loss`: the loss that evaluation reports for the inner loss."""
        return self.inner.reported(outputs, target, constants)
