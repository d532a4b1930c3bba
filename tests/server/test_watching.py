"""Who is called when something happens at a descriptor, and who is not."""

from __future__ import annotations

import os
import select
import socket
from typing import Callable, Iterator, List, Tuple

import pytest

from pytest_tvmrpc.server.watching import Watching

Pair = Tuple[socket.socket, socket.socket]


@pytest.fixture(name="pairs")
def _pairs() -> Iterator[List[Pair]]:
    """Two connections, in which something has arrived."""
    pairs = [socket.socketpair(), socket.socketpair()]
    for ours, theirs in pairs:
        theirs.sendall(b"abc")
        ours.setblocking(False)
    yield pairs
    for pair in pairs:
        for connection in pair:
            connection.close()


def test_who_wants_to_know(pairs: List[Pair]) -> None:
    """Is called with what happened, until it is forgotten."""
    watching = Watching()
    happened: List[int] = []
    descriptor = pairs[0][0].fileno()
    watching.watch(descriptor, select.POLLIN, happened.append)
    assert descriptor in watching
    assert list(watching) == [descriptor]
    watching.turn(0)
    assert happened == [select.POLLIN]
    watching.forget(descriptor)
    watching.forget(descriptor)
    watching.turn(0)
    assert len(happened) == 1


def replace(watching: Watching, pairs: List[Pair], again: Callable[[int], None]) -> None:
    """Whoever is called first watches the other descriptor anew, for something else."""

    def first(events: int) -> None:
        watching.forget(pairs[0][0].fileno())
        watching.forget(pairs[1][0].fileno())
        watching.watch(pairs[1][0].fileno(), select.POLLIN, again)

    for ours, _ in pairs:
        watching.watch(ours.fileno(), select.POLLIN, first)


def test_an_event_of_before(pairs: List[Pair]) -> None:
    """It is none of whoever has begun to watch since then; that is called the next time."""
    watching = Watching()
    happened: List[int] = []
    replace(watching, pairs, happened.append)
    watching.turn(0)
    assert happened == []
    watching.turn(0)
    assert happened == [select.POLLIN]


def test_a_descriptor_that_is_closed_meanwhile(pairs: List[Pair]) -> None:
    """Another of the same number is watched: what happened to the first is not told of it."""
    watching = Watching()
    happened: List[int] = []
    reader, writer = os.pipe()

    def first(events: int) -> None:
        for ours, _ in pairs:
            watching.forget(ours.fileno())
        os.dup2(reader, pairs[1][0].fileno())
        watching.watch(pairs[1][0].fileno(), select.POLLIN, happened.append)

    for ours, _ in pairs:
        watching.watch(ours.fileno(), select.POLLIN, first)
    watching.turn(0)
    watching.turn(0)
    assert happened == []
    os.close(reader)
    os.close(writer)


def test_an_end_is_told_unasked(pairs: List[Pair]) -> None:
    """Whatever is watched for; else it would be told again and again, to nobody."""
    watching = Watching()
    happened: List[int] = []
    reader, writer = os.pipe()
    watching.watch(reader, getattr(select, "POLLRDHUP", select.POLLIN), happened.append)
    os.close(writer)
    watching.turn(0)
    assert len(happened) == 1
    assert happened[0] & select.POLLHUP
    os.close(reader)
