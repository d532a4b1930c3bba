"""Bytes in and out of an asyncio loop: nothing is lost, doubled, or kept without limit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Callable, Iterator, List, Tuple

import pytest

from pytest_tvmrpc.tracker import stream as module
from pytest_tvmrpc.tracker.stream import MAX_UNSENT, Stream

Pump = Callable[[Callable[[], object]], None]


class Echo(Stream):
    """Says what it hears, and notes what happens to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        super().__init__(loop, connection)
        self.events: List[str] = []

    def received(self, received: bytes) -> None:
        self.events.append("received")
        self.write(received)

    def drained(self) -> None:
        self.events.append("drained")
        self.resume_reading()

    def ended(self) -> None:
        self.events.append("ended")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of the test's own."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def pump(loop: asyncio.AbstractEventLoop, deadline_s: float) -> Pump:
    """``pump(condition)`` runs the loop until it holds."""

    def run(condition: Callable[[], object]) -> None:
        async def until() -> None:
            while not condition():
                await asyncio.sleep(0)

        loop.run_until_complete(asyncio.wait_for(until(), deadline_s))

    return run


@pytest.fixture
def pair(loop: asyncio.AbstractEventLoop) -> Iterator[Tuple[Echo, socket.socket]]:
    """An echo, and its peer."""
    near, far = socket.socketpair()
    echo = Echo(loop, near)
    far.setblocking(False)
    yield echo, far
    echo.abort()
    far.close()


def hear(far: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return far.recv(1 << 20)
    return b""


def test_who_does_not_read_is_closed_all_the_same(
    pair: Tuple[Echo, socket.socket], pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsent words keep a closed connection for a while only; read in time, they all arrive."""
    monkeypatch.setattr(module, "CLOSE_LIMIT_S", 0.05)
    echo, far = pair
    near = echo._connection
    echo.write(bytes(1 << 20))
    assert echo.unsent_bytes
    echo.close()
    assert near.fileno() >= 0
    pump(lambda: near.fileno() < 0)
    assert echo.events == ["ended"]
    while hear(far):
        pass


def test_what_comes_goes_back(pair: Tuple[Echo, socket.socket], pump: Pump) -> None:
    """One word, one answer; the end of the stream is its end."""
    echo, far = pair
    far.send(b"word")
    heard = bytearray()
    pump(lambda: heard.extend(hear(far)) or len(heard) == 4)
    assert heard == b"word"
    far.shutdown(socket.SHUT_WR)
    pump(lambda: echo.is_closing)
    assert echo.events == ["received", "ended"]
    assert far.recv(1) == b""


def test_a_peer_that_does_not_read_is_not_read_from(
    pair: Tuple[Echo, socket.socket], pump: Pump
) -> None:
    """What it has yet to read is bounded, and arrives complete when it reads."""
    echo, far = pair
    words = bytes(range(256)) * 1024
    sent = bytearray()

    def push() -> bool:
        with contextlib.suppress(BlockingIOError):
            sent.extend(words[: far.send(words)])
        return echo.is_choked

    pump(push)
    kept = echo.unsent_bytes
    assert MAX_UNSENT < kept <= 2 * MAX_UNSENT
    for _ in range(10):
        pump(push)
    assert echo.unsent_bytes == kept
    heard = bytearray()
    pump(lambda: heard.extend(hear(far)) or len(heard) == len(sent))
    assert heard == sent
    assert "drained" in echo.events


def test_a_close_lets_the_last_words_out(pair: Tuple[Echo, socket.socket], pump: Pump) -> None:
    """They are told that it ended at once, and everything written before arrives."""
    echo, far = pair
    echo.write(b"x" * 1_000_000)
    assert echo.unsent_bytes
    echo.close()
    assert echo.events == ["ended"]
    echo.write(b"never")
    heard = bytearray()
    pump(lambda: heard.extend(hear(far)) or len(heard) == 1_000_000)
    assert echo.unsent_bytes == 0
    assert far.recv(10) == b""
    echo.close()
    echo.abort()
    assert echo.events == ["ended"]


def test_an_abort_keeps_nothing(pair: Tuple[Echo, socket.socket], pump: Pump) -> None:
    """Unsent words are dropped, the end is told once."""
    echo, _ = pair
    echo.write(b"x" * 1_000_000)
    echo.abort()
    echo.abort()
    assert (echo.unsent_bytes, echo.events) == (0, ["ended"])


def test_a_peer_that_is_gone_ends_it(pair: Tuple[Echo, socket.socket], pump: Pump) -> None:
    """Noticed when something is written, too."""
    echo, far = pair
    far.close()
    echo.write(b"word")
    pump(lambda: echo.is_closing)
    assert echo.events == ["ended"]
