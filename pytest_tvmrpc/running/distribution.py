"""Which test a worker gets next: the decider. Knows no worker, no clock and no tracker.

A test is its place in the collection and the device keys of which any will do for it. A key has as
many places as there are devices of it; a worker takes one while it has a test for that key, queued
or running.
"""

from __future__ import annotations

import heapq
from typing import Iterable, Iterator, Mapping, Sequence, Tuple

Keys = Tuple[str, ...]

LEAST = 2  # a worker does not begin a test before it knows the next one

_DEPTHS = ((0.1, LEAST), (0.01, 4), (0.0, 8))
"""From this duration of a test on, this many in a worker's queue.

What a worker has cannot go elsewhere any more; but with two, it waits for the controller after each
test, and that takes milliseconds, which is nothing only for tests that are longer.
"""


def depth(duration_s: float) -> int:
    """How many tests a worker shall have whose last one took so long."""
    return next(tests for least_s, tests in _DEPTHS if duration_s >= least_s)


class Waiting:
    """The tests that no worker has.

    Args:
        keys: those of each test of the collection; none, if it is a local one.
        indices: those that wait at the beginning.
    """

    def __init__(self, keys: Sequence[Keys], indices: Iterable[int] = ()) -> None:
        self._keys = keys
        self._groups: dict[Keys, list[int]] = {}  # each a heap; only those that are not empty
        self._count = 0
        for index in indices:
            self.add(index)

    def __len__(self) -> int:
        return self._count

    def add(self, index: int) -> None:
        """A test waits, maybe again; it comes before those that are behind it in the collection."""
        heapq.heappush(self._groups.setdefault(self._keys[index], []), index)
        self._count += 1

    def firsts(self) -> Iterator[tuple[int, Keys]]:
        """The first test of each combination of keys, in the order of the collection."""
        return iter(sorted((group[0], keys) for keys, group in self._groups.items()))

    def take(self, keys: Keys) -> int:
        """The first test that has these keys; it waits no longer."""
        group = self._groups[keys]
        index = heapq.heappop(group)
        if not group:
            del self._groups[keys]
        self._count -= 1
        return index


def deal(
    waiting: Waiting,
    count: int,
    mine: Iterable[str],
    others: Iterable[set[str]],
    capacity: Mapping[str, int],
) -> list[int]:
    """Take tests for a worker, never none while some wait.

    Args:
        waiting: what there is to take.
        count: how many at most.
        mine: the keys of the tests that the worker has.
        others: those of each other worker.
        capacity: devices of each key; one that is not there is not limited.
    """
    taken: list[int] = []
    held = set(mine)
    elsewhere = list(others)
    while waiting and len(taken) < count:
        best = _choose(waiting, held, elsewhere, capacity)
        taken.append(waiting.take(best))
        held.update(best)
    return taken


def _choose(
    waiting: Waiting, held: set[str], others: Sequence[set[str]], capacity: Mapping[str, int]
) -> Keys:
    """The first test for which there is a free place, or the one with the shortest queue."""
    best: Keys = ()
    lowest = float("inf")
    for _, keys in waiting.firsts():
        load = 0.0 if held.intersection(keys) else _load(keys, others, capacity)
        if load < 1:
            return keys
        if load < lowest:
            best, lowest = keys, load
    return best


def _load(keys: Keys, others: Sequence[set[str]], capacity: Mapping[str, int]) -> float:
    """How many workers there are for each device of these keys."""
    if not all(key in capacity for key in keys) or not keys:
        return 0.0
    workers = sum(not theirs.isdisjoint(keys) for theirs in others)
    devices = sum(capacity[key] for key in keys)
    return workers / devices if devices else workers + 1.0  # as if one more were in front
