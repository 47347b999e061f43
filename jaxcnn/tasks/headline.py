"""The figure on which decisions are based."""

import dataclasses
from collections.abc import Mapping
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Headline:
    """The figure on which decisions are based: the best checkpoint, sweeps, tables.

    Attributes:
      name: its name among the figures, such as "top1_accuracy".
      label: its name in text, such as "accuracy".
      better: which values are better.
      percent: whether it is a fraction of 1, shown in per cent.
    """

    name: str
    label: str
    better: Literal["higher", "lower"] = "higher"
    percent: bool = True

    def shown(self, value: float, digits: int = 2) -> str:
        """A value as text."""
        return f"{100 * value:.{digits}f}%" if self.percent else f"{value:.{digits + 2}g}"

    def among(self, figures: Mapping[str, float]) -> str:
        """Its name and value in figures, with a space before; empty if it is not there."""
        return f" {self.label} {self.shown(figures[self.name])}" if self.name in figures else ""

    def score(self, value: float) -> float:
        """A number that is larger for better values."""
        return value if self.better == "higher" else -value

    def value(self, score: float) -> float:
        """The inverse of `score`."""
        return self.score(score)

    @property
    def key(self) -> str:
        """Its label as a key of JSON."""
        return self.label.replace(" ", "_")

    @property
    def objective(self) -> str:
        """Its name among the objectives of a sweep, measured on validation."""
        return f"val_{self.key}"
