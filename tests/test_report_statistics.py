"""Spreads, tests of significance and fronts are what their definitions say, and their words claim no more."""

import numpy as np
import pytest
import scipy.stats

from jaxcnn.reporting.statistics import Spread, compare, pareto_front, spread


def test_spread_has_the_sample_standard_deviation_and_none_for_one_run():
    of = spread([0.9, None, 0.92, float("nan"), 0.97])
    assert of is not None
    assert (of.n, of.mean) == (3, pytest.approx(0.93, abs=1e-15))
    assert of.std == pytest.approx(np.std([0.9, 0.92, 0.97], ddof=1), rel=1e-12)
    assert Spread((0.9,)).std is None
    assert spread([None]) is None


def test_runs_of_one_seed_are_one_sample_with_their_mean():
    of = spread([0.9, 0.92, 0.8, None, 0.7], [0, 0, 1, 1, 2])
    assert of is not None
    assert of.values == (pytest.approx(0.91, abs=1e-15), 0.8, 0.7)
    value = 1 / 49
    again = spread([value] * 49, [5] * 49)
    assert again is not None
    assert (again.values, again.std) == ((value,), None), "the mean of equal values is the value to the bit"
    assert compare(again, of).verdict == "unknown"


def test_p_is_that_of_welchs_test():
    generator = np.random.default_rng(0)
    for n, m in ((2, 2), (3, 5), (10, 4)):
        one, two = generator.normal(0.94, 0.002, n), generator.normal(0.93, 0.004, m)
        theirs = scipy.stats.ttest_ind(one, two, equal_var=False)
        ours = compare(Spread(tuple(one)), Spread(tuple(two)))
        assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
        assert ours.t == pytest.approx(theirs.statistic, rel=1e-9)
        assert ours.degrees == pytest.approx(theirs.df, rel=1e-9)
        assert ours.n == (n, m)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "words"),
    [
        ((0.94,), (0.93, 0.931), "unknown", "no spread is known"),
        ((0.94, 0.94), (0.93, 0.93), "unknown", "too few seeds"),
        ((0.94, 0.94), (0.94, 0.94), "equal", "no difference"),
        ((0.940, 0.950), (0.939, 0.943), "within the spread", "smaller than the seeds' spread"),
        ((0.940, 0.944), (0.938, 0.932), "not significant", "not significant"),
        ((0.940, 0.941, 0.942), (0.930, 0.931, 0.932), "significant", "significant"),
    ],
)
def test_a_difference_is_called_what_the_seeds_can_show(first, second, verdict, words):
    outcome = compare(Spread(first), Spread(second))
    assert outcome.verdict == verdict
    assert words in outcome.words()
    assert f"n = {len(first)} and {len(second)}" in outcome.words()


def test_a_difference_within_the_spread_stays_so_however_many_seeds_there_are():
    noise = np.linspace(-0.01, 0.01, 400)
    outcome = compare(Spread(tuple(0.940 + noise)), Spread(tuple(0.937 + noise)))
    assert outcome.p is not None
    assert outcome.p < 1e-6
    assert outcome.verdict == "within the spread"


def test_the_front_is_of_those_that_no_other_beats_in_both():
    generator = np.random.default_rng(1)
    points = [tuple(p) for p in generator.integers(0, 12, (60, 2)).astype(float)]
    front = pareto_front(points)
    better = [
        [p for p in points if p != q and p[0] <= q[0] and p[1] >= q[1]] for q in points
    ]  # brute force: what dominates each
    assert {points[i] for i in front} == {q for q, others in zip(points, better, strict=True) if not others}
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
    assert len({points[i] for i in front}) == len(front)
