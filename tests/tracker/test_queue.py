"""One queue: who is next."""

from __future__ import annotations

from typing import List

from pytest_tvmrpc.tracker.queue import Asker, Pending, Queue


def filled(priorities: List[float]) -> Queue:
    queue = Queue()
    for number, priority in enumerate(priorities):
        queue.push(number, Pending(f"client {number}", Asker(), priority, 0))
    return queue


def test_the_line_is_the_order_of_the_turns() -> None:
    """What the line shows is what pop() does, also after somebody left."""
    queue = filled([1, 5, 1, 5, -3])
    queue.drop(1)
    line = [request.requester for request in queue.line()]
    assert line == [queue.pop()[1].requester for _ in range(4)]
    assert line == ["client 3", "client 0", "client 2", "client 4"]


def test_equal_requests_are_never_compared() -> None:
    """The number decides; requesters need have no order."""
    queue = Queue()
    for number in range(3):
        queue.push(number, Pending(object(), Asker(), 1, 0))
    assert [queue.pop()[0] for _ in range(3)] == [0, 1, 2]


def test_a_queue_is_idle_without_anything_in_it() -> None:
    """A supplier keeps it, as does a request."""
    queue = filled([1])
    assert not queue.is_idle
    queue.drop(0)
    assert queue.is_idle
    queue.suppliers = 1
    assert not queue.is_idle
