"""Connections that nobody waits for: names, several addresses, limits."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from pytest_tvmrpc import network
from pytest_tvmrpc.errors import ConnectError
from pytest_tvmrpc.protocol.pause import LAST_PAUSE_S
from pytest_tvmrpc.server.dialling import Dialler
from pytest_tvmrpc.server.registration import Registration
from pytest_tvmrpc.server.tracker_link import TrackerLink

# Python 3.12 warns of forks in processes with threads, as pytest-xdist's are; the server has none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


class Loop:
    """A supervisor's loop, turned by hand."""

    def __init__(self) -> None:
        self.watched: Dict[int, Any] = {}
        self.reports: List[str] = []
        self.pids: List[int] = []

    def watch(self, descriptor: int, events: int, happened: Callable[[int], None]) -> None:
        """Keeps what is to be called."""
        self.watched[descriptor] = (events, happened)

    def forget(self, descriptor: int) -> None:
        """No more."""
        self.watched.pop(descriptor, None)

    def report(self, line: str) -> None:
        """Keeps it."""
        self.reports.append(line)

    def say_ready(self) -> None:
        """Nobody is waiting for it."""

    def descriptors(self) -> List[int]:
        """None of ours matters."""
        return []

    def errand(self, pid: int) -> None:
        """Keeps it, to be reaped."""
        self.pids.append(pid)

    def turn(self, limit_s: float) -> None:
        """Waits for one thing to happen."""
        poll = select.poll()
        for descriptor, (events, _) in self.watched.items():
            poll.register(descriptor, events)
        for descriptor, events in poll.poll(limit_s * 1000):
            self.watched[descriptor][1](events)


@pytest.fixture(name="loop")
def _loop() -> Iterator[Loop]:
    """A loop; what was forked from it is reaped."""
    loop = Loop()
    yield loop
    for pid in loop.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Outcome:
    """What came of an attempt."""

    def __init__(self) -> None:
        self.sockets: List[socket.socket] = []
        self.failures: List[str] = []

    def close(self) -> None:
        """No socket stays."""
        for connection in self.sockets:
            connection.close()


@pytest.fixture(name="outcome")
def _outcome() -> Iterator[Outcome]:
    """What comes of the attempts of one test."""
    outcome = Outcome()
    yield outcome
    outcome.close()


def dialler(address: Any, loop: Loop, outcome: Outcome) -> Dialler:
    """One that writes down what happens."""
    return Dialler(address, loop, outcome.sockets.append, outcome.failures.append)


def settle(dialler: Dialler, loop: Loop, deadline_s: float) -> None:
    """Until the attempt is over."""
    end = time.monotonic() + deadline_s
    while dialler.is_busy:
        loop.turn(0.1)
        assert time.monotonic() < end


def test_an_address_needs_no_look_up(loop: Loop, outcome: Outcome, deadline_s: float) -> None:
    """And the socket has what notices that its peer is gone."""
    with network.listen("127.0.0.1", 0) as listener:
        attempt = dialler(("127.0.0.1", listener.getsockname()[1]), loop, outcome)
        attempt.start(time.monotonic())
        settle(attempt, loop, deadline_s)
        (connection,) = outcome.sockets
        assert loop.pids == []
        assert loop.watched == {}
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert connection.getpeername() == listener.getsockname()


def test_a_name_is_looked_up_by_another_process(
    loop: Loop, outcome: Outcome, deadline_s: float
) -> None:
    """localhost may be ::1 first: each attempt takes the next of its addresses."""
    with network.listen("127.0.0.1", 0) as listener:
        attempt = dialler(("localhost", listener.getsockname()[1]), loop, outcome)
        for _ in range(4):
            attempt.start(time.monotonic())
            settle(attempt, loop, deadline_s)
            if outcome.sockets:
                break
        assert len(outcome.sockets) == 1
        assert len(loop.pids) == 1
        attempt.remember()
        attempt.start(time.monotonic())
        settle(attempt, loop, deadline_s)
        assert len(outcome.sockets) == 2
        assert len(loop.pids) == 1, "what worked is not looked up again"


def test_a_name_that_is_none(
    loop: Loop, outcome: Outcome, deadline_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason comes back from the other process."""

    def resolve(host: str, port: int) -> Any:
        raise ConnectError(f"the host name {host!r} cannot be resolved: no such name")

    monkeypatch.setattr(network, "resolve", resolve)
    attempt = dialler(("tracker.example", 1), loop, outcome)
    attempt.start(time.monotonic())
    settle(attempt, loop, deadline_s)
    assert outcome.failures == ["the host name 'tracker.example' cannot be resolved: no such name"]


def test_a_name_server_that_does_not_answer(
    loop: Loop, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting takes no time; the look-up has a limit, and its process is ended then."""
    monkeypatch.setattr(network, "resolve", lambda host, port: signal.pause())
    attempt = dialler(("tracker.example", 1), loop, outcome)
    now = time.monotonic()
    attempt.start(now)
    assert time.monotonic() - now < 1
    due = attempt.next_wakeup()
    assert due is not None
    attempt.tick(due - 0.001)
    assert outcome.failures == []
    attempt.tick(due)
    assert "no answer to the look-up of its name" in outcome.failures[0]
    assert loop.watched == {}
    assert os.waitid(os.P_PID, loop.pids[0], os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL


def test_old_addresses_will_do(
    loop: Loop, outcome: Outcome, deadline_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are looked up when all were in vain; without an answer, they are tried again."""
    with network.listen("127.0.0.1", 0) as listener:
        address = listener.getsockname()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)] * 2
    monkeypatch.setattr(network, "resolve", lambda host, port: found)
    attempt = dialler(("tracker.example", address[1]), loop, outcome)
    looked_up = []
    for _ in range(4):
        attempt.start(time.monotonic())
        settle(attempt, loop, deadline_s)
        looked_up.append(len(loop.pids))

        def resolve(host: str, port: int) -> Any:
            raise ConnectError("no answer")

        monkeypatch.setattr(network, "resolve", resolve)
    assert looked_up == [1, 1, 2, 2]
    assert outcome.failures == [os.strerror(111)] * 4


def test_an_attempt_that_is_refused_at_once(
    loop: Loop, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is what the system said then, not what the socket says later."""
    real = socket.socket

    class NoRoute(real):  # type: ignore[misc, valid-type]
        """One for which the system has no way."""

        def connect_ex(self, address: Any) -> int:
            """Says so."""
            return errno.ENETUNREACH

    monkeypatch.setattr(socket, "socket", NoRoute)
    attempt = dialler(("127.0.0.1", 1), loop, outcome)
    attempt.start(time.monotonic())
    assert outcome.failures == [os.strerror(errno.ENETUNREACH)]
    assert not attempt.is_busy
    assert loop.watched == {}


def test_a_system_without_keepalive(
    loop: Loop, outcome: Outcome, deadline_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is as good without it; its peer may even have gone by then."""

    def set_keepalive(connection: socket.socket) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(network, "set_keepalive", set_keepalive)
    with network.listen("127.0.0.1", 0) as listener:
        attempt = dialler(("127.0.0.1", listener.getsockname()[1]), loop, outcome)
        attempt.start(time.monotonic())
        settle(attempt, loop, deadline_s)
        assert len(outcome.sockets) == 1


def test_no_process_for_a_look_up(
    loop: Loop, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a failure like others, to be tried again."""

    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    attempt = dialler(("tracker.example", 1), loop, outcome)
    attempt.start(time.monotonic())
    assert "Resource temporarily unavailable" in outcome.failures[0]
    assert not attempt.is_busy


def test_a_link_that_is_lost_for_a_day(loop: Loop, deadline_s: float) -> None:
    """It is tried again for ever, never more than ten seconds later; the loss is reported once."""
    with network.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
    registration = Registration("k", 1, None, entropy=os.urandom)
    link = TrackerLink(("127.0.0.1", port), registration, loop, lambda reason: None)
    now = time.monotonic()
    waits = []
    for _ in range(30):
        link.tick(now)
        while loop.watched:
            loop.turn(deadline_s)
        due = link.next_wakeup(now)
        waits.append(due - time.monotonic())
        now = due
    link.close()
    assert all(wait <= LAST_PAUSE_S for wait in waits)
    assert max(waits) > LAST_PAUSE_S / 2 - 0.1
    assert len(loop.reports) == 1
    assert "is not there: Connection refused; trying again" in loop.reports[0]
