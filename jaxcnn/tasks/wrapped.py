"""Losses around another one."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jaxcnn.config as configuration
from jaxcnn.tasks.task import Facts, Loss, OfEach, Outputs, Settings, Tree


@dataclasses.dataclass(frozen=True)
class Wrapped:
    """A loss that is the inner one, except for what a subclass changes.

    Attributes:
      inner: the other loss.
    """

    inner: Loss

    @property
    def plain(self) -> Loss:
        """That of the inner loss."""
        return self.inner.plain

    @property
    def settings(self) -> tuple[str, ...]:
        """Those of the inner loss."""
        return self.inner.settings

    def abstract(self) -> dict[str, Any]:
        """Those of the inner loss."""
        return self.inner.abstract()

    def constants(
        self, config: configuration.Task, names: Sequence[str], facts: Facts, targets: Tree | None
    ) -> dict[str, Any]:
        """Those of the inner loss; the caller adds those that a subclass needs besides."""
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
