"""What a call of `python -m jaxcnn.explain` asks for, and which files that gives."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxcnn.explain import evaluation, out

AMONG, POINTS = 20_000, 2000


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be explained and written.

    Attributes:
      methods: names of the methods.
      target: as for `Subject.targets`.
      layer: layer of class activation maps.
      baseline: "mean" or "black".
      options: arguments of each method, by its name.
      score: whether methods are scored, beside two controls.
      randomise: whether the layers of the network are drawn anew, from the top down.
      independent: whether each is also drawn anew alone.
      road: as for `evaluation.of_part`.
      seed: seed of all random numbers.
      neighbours: number of nearest training images that are shown for each image.
      among: most training images that are looked at for them.
      feature_map: one of `feature_map.KINDS`; empty: none.
      split: split whose images the map shows.
      points: most images of the map.
    """

    methods: Sequence[str]
    target: Any = "predicted"
    layer: str = ""
    baseline: str = "mean"
    options: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    score: bool = False
    randomise: bool = False
    independent: bool = False
    road: bool | None = None
    seed: int = 0
    neighbours: int = 0
    among: int = AMONG
    feature_map: str = ""
    split: str = "test"
    points: int = POINTS

    @property
    def scored(self) -> list[str]:
        """All methods whose maps are made: with scores, the controls too."""
        return list(dict.fromkeys([*self.methods, *(evaluation.CONTROLS if self.score else ())]))

    def files(self, count: int) -> list[str]:
        """The names of the files that can be written for `count` images."""
        drawn = [out.picture(number, count, name) for name in self.methods for number in range(count)]
        there = {out.SCORES: self.score, out.CURVES: self.score, out.RANDOMISED: self.randomise}
        there |= {out.ALONE: self.randomise and self.independent, out.FEATURES: bool(self.feature_map)}
        figures = [out.FIGURE, out.FIGURE.removesuffix(".png") + ".pdf"]
        return [out.MAPS, out.PAGE, *figures, *out.tables(name for name, wanted in there.items() if wanted), *drawn]
