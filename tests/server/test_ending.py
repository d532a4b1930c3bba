"""What a client still hears of its session when it is over, however slowly it reads."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import numpy as np
import pytest

from pytest_tvmrpc import rpc, runtime
from pytest_tvmrpc.errors import RPCSessionTimeoutError, SessionCrashedError, SessionKickedError
from pytest_tvmrpc.network import listen
from pytest_tvmrpc.protocol.dialect import LEGACY
from pytest_tvmrpc.server.ending import Ending, end_at_once

WaitUntil = Callable[..., None]

NBYTES = 64 << 20
"""More than any system keeps for a connection."""


class Valve:
    """Carries bytes between a client and a server, until it is told to carry none to the client.

    Args:
        port: the server's.
    """

    def __init__(self, port: int, deadline_s: float) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.has_stopped = threading.Event()
        self._listener = listen("127.0.0.1", 0)
        self.port = self._listener.getsockname()[1]
        self._server = socket.create_connection(("127.0.0.1", port), deadline_s)
        self._threads = [threading.Thread(target=self._carry)]
        self._threads[0].start()

    def _carry(self) -> None:
        client, _ = self._listener.accept()
        ends = ((client, self._server), (self._server, client))
        self._threads += [threading.Thread(target=self._pump, args=pair) for pair in ends]
        for thread in self._threads[1:]:
            thread.start()
        for thread in self._threads[1:]:
            thread.join()
        client.close()
        self._server.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while True:
                if source is self._server and not self.is_open.is_set():
                    self.has_stopped.set()
                    self.is_open.wait()
                part = source.recv(1 << 16)
                target.sendall(part)
                if not part:
                    break
            target.shutdown(socket.SHUT_WR)
        except OSError:  # one of the two is gone
            pass

    def has_more(self) -> bool:
        """Whether something of the server's has come that is not carried on."""
        with contextlib.suppress(BlockingIOError):
            return bool(self._server.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False

    def close(self) -> None:
        self.is_open.set()
        self._threads[0].join()
        self._listener.close()


@pytest.fixture(name="valve")
def _valve(deadline_s: float) -> Iterator[Callable[[int], Valve]]:
    """``valve(port)``: between a server and its client."""
    made: List[Valve] = []

    def make(port: int) -> Valve:
        made.append(Valve(port, deadline_s))
        return made[-1]

    yield make
    for valve in made:
        valve.close()


def in_a_thread(work: Callable[[], object]) -> Tuple[threading.Thread, List[Any]]:
    """Does it; what it returned or raised is in the list."""
    found: List[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


ENDS = {
    "its time is up": (RPCSessionTimeoutError, "session has expired"),
    "it is kicked": (SessionKickedError, "for the test"),
    "it crashes": (SessionCrashedError, "was killed by SIGKILL within an answer"),
}

CONTENTS = {
    "a tensor": lambda remote, tensor: tensor.numpy(),
    "a file": lambda remote, tensor: remote.download("file"),
    "calls in a pipeline": lambda remote, tensor: pipelined(remote),
}


def pipelined(remote: rpc.RPCSession) -> object:
    download = remote.get_function("tvm.rpc.server.download")
    calls = []
    with contextlib.suppress(rpc.RPCError), remote.pipeline() as pipeline:
        calls += [pipeline.call(download, "file") for _ in range(3)]
    first, *others = [call.exception() for call in calls]
    assert {type(error) for error in others} == {type(first)}
    assert first is not None
    raise first


@pytest.mark.parametrize(
    ("content", "dialect", "way"),
    [
        *((content, "ffi", "directly") for content in CONTENTS),
        ("a tensor", "legacy", "directly"),
        ("a tensor", "ffi", "through a proxy"),
    ],
)
@pytest.mark.parametrize("end", ENDS)
def test_a_session_that_ends_within_a_long_answer(
    start_server: Any,
    valve: Callable[[int], Valve],
    wait_until: WaitUntil,
    deadline_s: float,
    end: str,
    content: str,
    dialect: str,
    way: str,
) -> None:
    """Its client, which has not read the answer yet, is told why there is no more of it.

    A proxy ends a session that is kicked itself, and does not know what is said there.
    """
    if end == "it is kicked" and way != "directly":
        end = "it crashes"
    limit_s = deadline_s / 10 if end == "its time is up" else 0
    with rpc.Tracker(port=0, silent=True) as tracker:
        address = (tracker.host, tracker.port)
        if way == "directly":
            server = start_server(tracker_addr=address, key="k")
            check_end(server, valve, wait_until, address, end, content, dialect, limit_s)
        else:
            with rpc.Proxy(port=0, tracker_addr=address) as proxy:
                server = start_server(proxy_port=proxy.port, is_proxy=True, key="k")
                check_end(server, valve, wait_until, address, end, content, dialect, limit_s)


def check_end(
    server: Any,
    valve: Callable[[int], Valve],
    wait_until: WaitUntil,
    address: Any,
    end: str,
    content: str,
    dialect: str,
    limit_s: float,
) -> None:
    error, message = ENDS[end]
    with rpc.connect_tracker(*address) as farm:
        granted = farm.lease("k", wait_for_key=True)
        between = valve(granted.port)
        remote = rpc.connect(
            "127.0.0.1", between.port, key=granted.match_key, session_timeout=limit_s
        )
        if dialect == "legacy":
            remote._endpoint.speak(LEGACY)
        remote.upload(bytearray(NBYTES), "file")
        tensor = runtime.empty((NBYTES,), "uint8", remote.cpu(0))
        tensor.copyfrom(np.zeros(NBYTES, "uint8"))
        remote.cpu(0).sync()
        (process,) = server.children
        between.is_open.clear()
        thread, found = in_a_thread(lambda: CONTENTS[content](remote, tensor))
        between.has_stopped.wait()
        wait_until(between.has_more, "the answer has begun, and nobody takes it")
        wait_until(lambda: is_asleep(process), "there is no room for more of it")
        if end == "it is kicked":
            farm.kick("k", "for the test")
        elif end == "it crashes":
            os.kill(process, signal.SIGKILL)
        wait_until(lambda: not server.children, "the session is over")
        between.is_open.set()
        thread.join()
        (raised,) = found
        assert type(raised) is error
        assert message in str(raised)
        assert remote.lost is (end != "its time is up")
        with pytest.raises(rpc.RPCError, match=message):
            remote.get_function("rpc.test.addone")


def is_asleep(process: int) -> bool:
    """Whether a process waits for something."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.fixture(name="pair")
def _pair() -> Iterator[Tuple[socket.socket, socket.socket]]:
    """Both ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_packet_that_does_not_fit(pair: Tuple[socket.socket, socket.socket]) -> None:
    """It arrives whole behind what was sent before, as its reader makes room for it."""
    ours, theirs = pair
    ours.setblocking(False)
    before = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            before += ours.send(bytes(4096))
    packet = b"x" * 300_000
    ending = Ending(ours, packet)
    received = bytearray()
    while ending.go_on():
        received += theirs.recv(1 << 16)
        if len(received) == before + len(packet):
            theirs.close()
    assert received == bytes(before) + packet


def test_what_the_client_still_says(pair: Tuple[socket.socket, socket.socket]) -> None:
    """It is passed over, so that nothing is reset; the end of it is the end."""
    ours, theirs = pair
    theirs.sendall(b"more")
    ending = Ending(ours, b"word")
    assert ending.go_on()
    assert theirs.recv(100) == b"word"
    assert theirs.recv(100) == b""
    theirs.sendall(b"and more")
    assert ending.go_on()
    theirs.close()
    assert not ending.go_on()


def test_who_is_gone(pair: Tuple[socket.socket, socket.socket]) -> None:
    """There is nothing to do."""
    ours, theirs = pair
    theirs.close()
    assert not Ending(ours, b"word").go_on()


def test_an_end_at_once(pair: Tuple[socket.socket, socket.socket]) -> None:
    """What fits is said, and the connection is closed."""
    ours, theirs = pair
    end_at_once(ours, b"word")
    assert ours.fileno() == -1
    assert theirs.recv(100) == b"word"
