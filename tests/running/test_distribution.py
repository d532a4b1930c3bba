"""Which test a worker gets next: tables of who has what and what is taken."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from pytest_tvmrpc.running.distribution import LEAST, Waiting, deal, depth

LOCAL = ()
A, B = ("a",), ("b",)
EITHER = ("a", "b")


class Case(NamedTuple):
    """Tests in the order of the collection, who has which keys, and what a worker then gets."""

    tests: "list[tuple[str, ...]]"
    count: int
    mine: str
    others: "list[str]"
    capacity: "dict[str, int]"
    taken: "list[int]"


CASES = {
    "in the order of the collection": Case([A, A, A], 2, "", [], {"a": 1}, [0, 1]),
    "no more than there are": Case([A], 4, "", [], {"a": 1}, [0]),
    "nothing to take": Case([], 2, "", [], {"a": 1}, []),
    "nothing wanted": Case([A], 0, "", [], {"a": 1}, []),
    "a full key is passed over": Case([A, A, B], 1, "", ["a"], {"a": 1, "b": 1}, [2]),
    "a key with one more device is not": Case([A, A, B], 1, "", ["a"], {"a": 2, "b": 1}, [0]),
    "local tests have no limit": Case([A, LOCAL, A], 1, "", ["a"], {"a": 1}, [1]),
    "local tests come in their order": Case([LOCAL, A], 1, "", [], {"a": 1}, [0]),
    "a worker that counts takes more": Case([A, B], 1, "a", ["a"], {"a": 1, "b": 1}, [0]),
    "one that has just taken does, too": Case([A, B, A], 3, "", [], {"a": 1, "b": 1}, [0, 1, 2]),
    "all full: the lowest load": Case([A, B], 1, "", ["a", "a", "b", "b"], {"a": 1, "b": 2}, [1]),
    "all full alike: the first": Case([B, A], 1, "", ["a", "b"], {"a": 1, "b": 1}, [0]),
    "never none, however full": Case([A, A], 2, "", ["a"] * 9, {"a": 1}, [0, 1]),
    "an unknown capacity is no limit": Case([A, B], 1, "", ["a"] * 9, {"b": 1}, [0]),
    "no device at all counts as one": Case([A, B], 1, "", ["b"], {"a": 0, "b": 1}, [0]),
    "none of a key is free: others come first": Case([A, B], 1, "", [], {"a": 0, "b": 1}, [1]),
    "it is so for all: the first": Case([A, B], 1, "", [], {"a": 0, "b": 0}, [0]),
    "any of two keys: both are full": Case([EITHER, B], 1, "", ["a", "b"], {"a": 1, "b": 1}, [0]),
    "any of two keys: one is free": Case([EITHER, A], 1, "", ["a"], {"a": 1, "b": 1}, [0]),
    "any of two keys: one that is unknown": Case([EITHER], 1, "", ["a"] * 3, {"a": 1}, [0]),
    "a worker with two keys counts once": Case(
        [EITHER, LOCAL], 1, "", ["ab"], {"a": 1, "b": 1}, [0]
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_deal(case: Case) -> None:
    """A worker gets the first tests for which there are devices, and some in any case."""
    waiting = Waiting(case.tests, range(len(case.tests)))
    others = [set(keys) for keys in case.others]
    assert deal(waiting, case.count, case.mine, others, case.capacity) == case.taken
    assert len(waiting) == len(case.tests) - len(case.taken)


def test_a_test_that_comes_back_is_first_again() -> None:
    """It has its place in the collection, not behind all others."""
    waiting = Waiting([A, A, LOCAL, A], range(4))
    assert deal(waiting, 3, "", [], {}) == [0, 1, 2]
    waiting.add(1)
    assert deal(waiting, 4, "", [], {}) == [1, 3]
    assert not waiting


def test_everything_is_dealt_once() -> None:
    """Workers that take turns get all tests, whatever the capacity, and none twice."""
    tests = [A, B, LOCAL, EITHER, A] * 20
    waiting = Waiting(tests, range(len(tests)))
    queues: list[list[int]] = [[], [], []]
    seen = []
    turn = 0
    while waiting:
        mine, *others = (
            {key for index in queue for key in tests[index]}
            for queue in queues[turn:] + queues[:turn]
        )
        taken = deal(waiting, 2, mine, others, {"a": 1, "b": 1})
        assert taken
        seen += taken
        queues[turn] = taken
        turn = (turn + 1) % len(queues)
    assert sorted(seen) == list(range(len(tests)))


@pytest.mark.parametrize(
    ("duration_s", "tests"), [(0.0, 8), (0.009, 8), (0.01, 4), (0.099, 4), (0.1, 2), (60.0, 2)]
)
def test_depth(duration_s: float, tests: int) -> None:
    """The shorter the tests, the more are queued; never fewer than pytest-xdist needs."""
    assert depth(duration_s) == tests >= LEAST
