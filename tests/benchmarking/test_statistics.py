"""Median, spread and the rank test, against by-hand results, all permutations, and SciPy."""

from __future__ import annotations

import itertools
import random
from typing import Sequence

import pytest

from pytest_tvmrpc.benchmarking import statistics


def _by_hand(greater: Sequence[float], other: Sequence[float]) -> float:
    """The exact p, by trying each way to choose who is in the first sample."""
    values = [*greater, *other]
    order = sorted(values)
    ranks = [order.index(value) + (order.count(value) + 1) / 2 for value in values]
    observed = sum(ranks[: len(greater)])
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, len(greater))]
    return sum(one >= observed for one in sums) / len(sums)


@pytest.mark.parametrize(
    ("values", "median", "mad", "iqr"),
    [
        ([3.0], 3.0, 0.0, 0.0),
        ([1.0, 2.0], 1.5, 0.5, 0.5),
        ([5.0, 1.0, 2.0, 4.0, 3.0], 3.0, 1.0, 2.0),
        ([1.0, 1.0, 1.0, 1.0, 100.0], 1.0, 0.0, 0.0),
    ],
)
def test_middle_and_spread(values: list[float], median: float, mad: float, iqr: float) -> None:
    """They are what the text books say, for any order, and one outlier does not move them."""
    assert statistics.median(values) == median
    assert statistics.mad(values) == mad
    assert statistics.iqr(values) == iqr


def test_spread_estimates_a_standard_deviation() -> None:
    """Also when one sample of ten is far off."""
    chance = random.Random(7)
    values = [chance.gauss(10.0, 2.0) for _ in range(4000)]
    assert statistics.spread(values) == pytest.approx(2.0, rel=0.05)
    assert statistics.spread([*values, *[1e6] * 100]) == pytest.approx(2.0, rel=0.1)


def test_how_values_wander() -> None:
    """The deviation of one of them; a step does not move it, jumping to and fro does."""
    chance = random.Random(8)
    values = [chance.gauss(10.0, 0.2) for _ in range(2000)]
    assert statistics.wander(values) == pytest.approx(0.02, rel=0.05)
    assert statistics.wander([1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0]) == 0.0
    assert statistics.wander([1.0, 3.0, 1.0, 1.0, 3.0, 1.0, 1.0, 3.0]) > 0.3


@pytest.mark.parametrize(
    ("greater", "other"),
    [
        ([5.0, 6.0, 7.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [5.0, 6.0, 7.0]),
        ([1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 6.0]),
        ([1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 2.0, 3.0, 3.0]),
        ([2.0, 2.0], [2.0, 2.0, 2.0]),
        ([4.0], [1.0, 2.0, 4.0]),
    ],
)
def test_rank_test_is_exact(greater: list[float], other: list[float]) -> None:
    """It counts what trying all ways counts, ties included."""
    assert statistics.rank_test(greater, other) == pytest.approx(_by_hand(greater, other))


def test_the_smallest_p() -> None:
    """It is reached when all of one are greater; five on each side get below one in a hundred."""
    high, low = [6.0, 7.0, 8.0, 9.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    assert statistics.rank_test(high, low) == pytest.approx(statistics.least_p(5, 5))
    assert statistics.least_p(5, 5) < 0.01 < statistics.least_p(4, 4)


def test_many_equal_samples() -> None:
    """Nothing is found in them, by either way of counting."""
    assert statistics.rank_test([1.0] * 10, [1.0] * 10) == 1.0
    assert statistics.rank_test([1.0] * 50, [1.0] * 50) == 1.0


def test_the_two_ways_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the largest exact size the normal distribution says nearly the same."""
    chance = random.Random(3)
    greater = [round(chance.gauss(10.4, 1.0), 1) for _ in range(30)]
    other = [round(chance.gauss(10.0, 1.0), 1) for _ in range(30)]
    exact = statistics.rank_test(greater, other)
    monkeypatch.setattr(statistics, "EXACT", 0)
    assert statistics.rank_test(greater, other) == pytest.approx(exact, rel=0.05)
    assert 0.001 < exact < 0.2


@pytest.mark.parametrize(("count", "shift"), [(6, 0.0), (10, 0.8), (25, 0.5), (60, 0.3)])
def test_against_scipy(count: int, shift: float) -> None:
    """SciPy gives the same p, exact without ties and by the normal distribution with them."""
    scipy_stats = pytest.importorskip("scipy.stats")
    chance = random.Random(count)
    greater = [chance.gauss(10 + shift, 1.0) for _ in range(count)]
    other = [chance.gauss(10, 1.0) for _ in range(count + 3)]
    exact = 2 * count + 3 <= statistics.EXACT
    if not exact:
        greater, other = [round(v, 1) for v in greater], [round(v, 1) for v in other]
    method = "exact" if exact else "asymptotic"
    theirs = scipy_stats.mannwhitneyu(greater, other, alternative="greater", method=method)
    assert statistics.rank_test(greater, other) == pytest.approx(theirs.pvalue, rel=1e-9)
