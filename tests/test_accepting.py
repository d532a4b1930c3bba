"""Letting connections in on an asyncio loop, also when the process has no descriptors left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

from pytest_tvmrpc import accepting as module
from pytest_tvmrpc import rpc
from pytest_tvmrpc.accepting import Acceptor

Pump = Callable[[Callable[[], object]], None]


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


class Full(socket.socket):
    """A listener in a process that has no descriptors left for some time."""

    failures = 0

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_it_waits_for_descriptors(
    loop: asyncio.AbstractEventLoop, pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who could not be let in is let in later, without a busy loop."""
    monkeypatch.setattr(module, "ACCEPT_PAUSE_S", 0.01)
    let_in: List[socket.socket] = []
    lines: List[str] = []
    with Full() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.failures = 2
        acceptor = Acceptor(loop, listener, lambda peer, _: let_in.append(peer), lines.append)
        with socket.create_connection(listener.getsockname()):
            pump(lambda: let_in)
        assert listener.failures == 0
        assert lines == ["no peer can be accepted now: [Errno 24] Too many open files"]
        acceptor.close()
        acceptor.close()
    let_in[0].close()


def test_a_crowd_is_let_in_by_and_by(
    loop: asyncio.AbstractEventLoop, pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many at a turn, and none is forgotten."""
    monkeypatch.setattr(module, "ACCEPTED_A_TURN", 2)
    let_in: List[socket.socket] = []
    lines: List[str] = []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        acceptor = Acceptor(loop, listener, lambda peer, _: let_in.append(peer), lines.append)
        for _ in range(5):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        pump(lambda: len(let_in) == 5)
        assert not lines
        acceptor.close()
    for connection in let_in:
        connection.close()


def processor_s(pid: int) -> float:
    """Seconds of the processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of another process")
@pytest.mark.parametrize("program", [rpc.Tracker, rpc.Proxy, rpc.Server])
def test_a_program_at_its_limit(
    program: Any, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """It says so once, takes little of the processor, and goes on when there are descriptors."""
    path = tmp_path / "log"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(path.open("w"))
        running = stack.enter_context(program(port=0, log=log))
        pid = running.program.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[1]))
        address = (running.host, running.port)
        for _ in range(used):  # some numbers below may be free
            stack.enter_context(socket.create_connection(address))
        wait_until(lambda: "accepted now" in path.read_text(), "it says that it has none")
        started, before_s = time.monotonic(), processor_s(pid)
        wait_until(lambda: time.monotonic() > started + 1, "it has tried for a second")
        assert processor_s(pid) - before_s < (time.monotonic() - started) / 2
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) > used, "the others are let in")
        text = path.read_text()
    assert text.count("accepted now") == 1
    assert "Traceback" not in text
