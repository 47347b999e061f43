"""The figure that decides, such as which checkpoint is the best."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Headline:
    """The figure that decides: for the best checkpoint, sweeps and tables.

    Attributes:
      name: name among the figures, such as "top1_accuracy".
      label: name in text, such as "accuracy".
      better: whether "higher" or "lower" values are better.
      percent: whether the figure is a fraction of 1, shown in per cent.
    """

    name: str
    label: str
    better: Literal["higher", "lower"] = "higher"
    percent: bool = True

    def shown(self, value: float, digits: int = 2) -> str:
        """The value as text."""
        return f"{100 * value:.{digits}f}%" if self.percent else f"{value:.{digits + 2}g}"

    def among(self, figures: Mapping[str, float]) -> str:
        """The label and value with a space before them, from `figures`; empty if they do not have this figure."""
        return f" {self.label} {self.shown(figures[self.name])}" if self.name in figures else ""

    def score(self, value: float) -> float:
        """A number that is larger for better values."""
        return value if self.better == "higher" else -value

    @staticmethod
    def rank(score: float) -> float:
        """The score where several are compared: one that is not finite is worse than every other."""
        return score if math.isfinite(score) else -math.inf

    def value(self, score: float) -> float:
        """The value of a score; the inverse of `score`."""
        return self.score(score)

    @property
    def key(self) -> str:
        """The label as a key of JSON."""
        return self.label.replace(" ", "_")

    @property
    def objective(self) -> str:
        """The name of the figure, measured on validation, among the objectives of a sweep."""
        return f"val_{self.key}"
