"""The arithmetic of samples: median, spread, and a rank test. Knows no unit and no benchmark.

Python's own module of this name takes longer to import than the rest of the plugin.
"""

from __future__ import annotations

import itertools
import math
from typing import Sequence

EXACT = 60
"""Up to so many samples in all the rank test is exact; above, the normal distribution is close."""

_SLOT = 64  # bits of each count below: C(60, 30) needs 57


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which this part of the values lies, straight lines between them.

    Args:
        values: at least one, in any order.
        part: 0.5 for the median.
    """
    ordered = sorted(values)
    place = part * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def median(values: Sequence[float]) -> float:
    """The value in the middle."""
    return quantile(values, 0.5)


def mad(values: Sequence[float]) -> float:
    """The median of the distances from the median; outliers do not move it."""
    middle = median(values)
    return median([abs(value - middle) for value in values])


def iqr(values: Sequence[float]) -> float:
    """The distance between the quartiles."""
    return quantile(values, 0.75) - quantile(values, 0.25)


def spread(values: Sequence[float]) -> float:
    """An estimate of the standard deviation that a few outliers do not move.

    The factors make of MAD and IQR what they are for normally distributed values.
    """
    return max(1.4826 * mad(values), iqr(values) / 1.349)


def wander(values: Sequence[float]) -> float:
    """By which part values that follow each other differ, as the standard deviation of one.

    The upper quartile of their changes, and what makes of it a deviation if they are normally
    distributed. One step among ten values, from which on all are other, does not move it; a value
    that jumps to and fro between two levels does.

    Args:
        values: at least two, all greater than 0.
    """
    changes = [abs(after / before - 1) for before, after in zip(values, values[1:])]
    return quantile(changes, 0.75) / (1.1503 * math.sqrt(2))


def rank_test(greater: Sequence[float], other: Sequence[float]) -> float:
    """How likely ranks as extreme are by chance, if both were samples of the same: p, one-sided.

    This is the test of Mann, Whitney and Wilcoxon. A small p says that `greater` tends to be
    greater than `other`. It is exact, with ties as well, up to `EXACT` samples in all.
    """
    ranks = _doubled_ranks([*greater, *other])
    observed = sum(ranks[: len(greater)])
    if len(ranks) <= EXACT:
        return _exact_tail(ranks, len(greater), observed)
    return _normal_tail(ranks, len(greater), observed)


def least_p(count: int, other: int) -> float:
    """The smallest p that the rank test can have with so many samples on each side."""
    return 1 / math.comb(count + other, count)


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value; equal values share the mean of theirs, hence twice."""
    places = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    before = 0
    for _, group in itertools.groupby(places, key=values.__getitem__):
        same = list(group)
        for place in same:
            ranks[place] = 2 * before + len(same) + 1
        before += len(same)
    return ranks


def _exact_tail(ranks: Sequence[int], count: int, observed: int) -> float:
    """The part of all choices of `count` ranks whose sum is as large as the observed one.

    ``ways[k]`` holds, in slots of 64 bits, how many choices of k ranks have which sum: adding a
    rank to the choices moves them by as many slots.
    """
    ways = [1, *[0] * count]
    for rank in ranks:
        for chosen in range(count, 0, -1):
            ways[chosen] += ways[chosen - 1] << (_SLOT * rank)
    tail, extreme = ways[count] >> (_SLOT * observed), 0
    while tail:
        extreme += tail & ((1 << _SLOT) - 1)
        tail >>= _SLOT
    return extreme / math.comb(len(ranks), count)


def _normal_tail(ranks: Sequence[int], count: int, observed: int) -> float:
    """The same by the normal distribution, corrected for ties and for the steps of the sum."""
    total = len(ranks)
    other = total - count
    ties = sum(len(list(group)) ** 3 for _, group in itertools.groupby(sorted(ranks)))
    variance = count * other / 12 * (total + 1 - (ties - total) / (total * (total - 1)))
    if variance <= 0:
        return 1.0  # all are equal
    excess = (observed - count * (total + 1)) / 2
    return math.erfc((excess - 0.5) / math.sqrt(2 * variance)) / 2
