"""Means, spreads and significance tests over seeds, and the words for their conclusions."""

import dataclasses
import math
import statistics
from collections.abc import Hashable, Sequence

from jaxcnn.tasks.headline import Headline

ACCURACY = Headline("top1_accuracy", "accuracy")
SIGNIFICANT = 0.05  # the p level used in the words


@dataclasses.dataclass(frozen=True)
class Spread:
    """Values of a figure over seeds, one per seed: the mean of its runs if it ran more than once."""

    values: tuple[float, ...]
    headline: Headline = ACCURACY

    @property
    def scale(self) -> int:
        """The factor by which a value is multiplied where it is shown: 100 if it is shown in per cent."""
        return scale(self.headline)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The arithmetic mean of the values."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation (divisor n - 1); None for one seed, whose spread is unknown."""
        return statistics.stdev(self.values) if self.n > 1 else None

    def to_json(self) -> dict[str, float | int | list[float] | None]:
        """The mean, std, n and the values as JSON."""
        return {"mean": self.mean, "std": self.std, "n": self.n, "values": list(self.values)}


def spread(values: Sequence[float | None], seeds: Sequence[Hashable] = ()) -> Spread | None:
    """The spread of the finite values; None if there are none.

    If `seeds` gives the seed of each value, the values of one seed are one sample, their mean: a repeated run gives no
    information about other seeds.
    """
    by_seed: dict[Hashable, list[float]] = {}
    for value, seed in zip(values, seeds or range(len(values)), strict=True):
        if value is not None and math.isfinite(value):
            by_seed.setdefault(seed, []).append(float(value))
    return Spread(tuple(map(_mean, by_seed.values()))) if by_seed else None


def _mean(values: list[float]) -> float:
    return values[0] if len(set(values)) == 1 else statistics.fmean(values)  # exact for equal values


def scale(headline: Headline) -> int:
    """The factor by which a value is multiplied where it is shown."""
    return 100 if headline.percent else 1


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of two rows.

    Attributes:
      difference: mean of the first minus mean of the second.
      p: p value of Welch's two-sided t-test; None if it cannot be computed.
      t, degrees: statistic and degrees of freedom of the test.
      n: number of seeds of each side.
      verdict: one of "unknown" (one seed on a side, or no spread on either), "within the spread", "not significant",
        "significant", "equal".
    """

    difference: float
    n: tuple[int, int]
    verdict: str
    p: float | None = None
    t: float | None = None
    degrees: float | None = None

    def words(self, unit: str = "points", scale: float = 100.0) -> str:
        """The comparison in a sentence; differences are multiplied by `scale`."""
        n = f"n = {self.n[0]} and {self.n[1]}"
        gap = f"{scale * abs(self.difference):.2f} {unit}"
        test = "" if self.p is None else f"Welch's t = {self.t:.2f}, p {_p(self.p)}, {n}"
        if self.verdict == "unknown":
            reason = "no spread is known" if min(self.n) == 1 else "too few seeds to show a spread"
            return f"{gap} apart, but {reason} ({n}): may be chance"
        if self.verdict == "equal":
            return f"no difference ({n})"
        if self.verdict == "within the spread":
            return f"{gap} apart: smaller than the seeds' spread ({test})"
        if self.verdict == "not significant":
            return f"{gap} apart: not significant ({test})"
        return f"{gap} apart: significant ({test})"


def compare(first: Spread, second: Spread) -> Comparison:
    """Compare two rows by the t-test for unequal variances (Welch 1947, doi 10.1093/biomet/34.1-2.28).

    A difference not larger than the larger of the two standard deviations counts as within the spread, whatever the
    test says: with many seeds, a test detects differences that no single run would show.
    """
    difference, n = first.mean - second.mean, (first.n, second.n)
    if first.std is None or second.std is None:
        return Comparison(difference, n, "unknown")
    if first.std == 0 and second.std == 0:
        return Comparison(difference, n, "equal" if difference == 0 else "unknown")
    from scipy.stats import ttest_ind_from_stats

    moments = (first.mean, first.std, first.n, second.mean, second.std, second.n)
    t, p = map(float, ttest_ind_from_stats(*moments, equal_var=False))
    one, two = first.std**2 / first.n, second.std**2 / second.n  # variances of the means
    degrees = (one + two) ** 2 / (one**2 / (first.n - 1) + two**2 / (second.n - 1))
    if abs(difference) <= max(first.std, second.std):
        verdict = "within the spread"
    else:
        verdict = "significant" if p < SIGNIFICANT else "not significant"
    return Comparison(difference, n, verdict, p, t, degrees)


def _p(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.001 else "< 0.001"


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, gain) that no other point beats in both; cheapest first, one of equal points."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front
