"""How a session ended: lost, or by us, or at a limit."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from typing import Any, Iterator

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import (
    ConnectionLostError,
    DeadlineError,
    RemoteProtocolError,
    SessionCrashedError,
)
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.endpoint import Endpoint


@pytest.fixture(name="own")
def _own() -> Iterator[rpc.Server]:
    """A server of the test's own, with functions that do not return."""

    def register() -> None:
        import ctypes

        from pytest_tvmrpc import runtime

        runtime.register_func("own.crash", lambda: ctypes.string_at(8))

    with rpc.Server(port=0, silent=True, server_init_callback=register) as server:
        yield server


def test_while_it_is_open(remote: rpc.RPCSession) -> None:
    """It is not lost, nor after an error of a function, nor after its close."""
    assert not remote.lost
    with pytest.raises(ValueError, match="boom"):
        remote.get_function("rpc.test.except")("boom")
    assert not remote.lost
    remote.close()
    assert remote.closed
    assert not remote.lost
    with pytest.raises(ConnectionLostError):
        remote.get_function("rpc.test.addone")
    assert not remote.lost


def test_a_session_in_this_process() -> None:
    """There is nothing to lose."""
    with rpc.LocalSession() as local:
        assert not local.lost
        assert local.is_ours
    assert not local.lost


def test_a_crash(own: rpc.Server) -> None:
    """Of the session's process; closing it afterwards changes nothing."""
    with rpc.connect(own.host, own.port) as remote:
        with pytest.raises(SessionCrashedError):
            remote.get_function("own.crash")()
        assert remote.lost
    assert remote.lost


def test_a_server_that_is_killed(own: rpc.Server) -> None:
    """Known with the next request."""
    with rpc.connect(own.host, own.port) as remote:
        assert remote.is_ours
        os.kill(own.program.pid, signal.SIGKILL)
        with pytest.raises(ConnectionLostError):
            _call_until_it_fails(remote)
        assert remote.lost


def _call_until_it_fails(remote: rpc.RPCSession) -> None:
    add = remote.get_function("rpc.test.addone")
    while True:
        add(1)


def test_a_pipeline(own: rpc.Server) -> None:
    """Lost in the middle of it."""
    remote = rpc.connect(own.host, own.port)
    crash = remote.get_function("own.crash")
    with remote, pytest.raises(SessionCrashedError), remote.pipeline() as p:
        p.call(crash).result()
    assert remote.lost


def test_kicked() -> None:
    """Somebody else took the device."""
    with rpc.Tracker(port=0, silent=True) as tracker, rpc.Server(
        port=0, key="k", tracker_addr=(tracker.host, tracker.port), silent=True
    ), rpc.connect_tracker(tracker.host, tracker.port) as farm, farm.request(
        "k", wait_for_key=True
    ) as remote:
        farm.kick("k", "lunch")
        with pytest.raises(ConnectionLostError):
            _call_until_it_fails(remote)
        assert remote.lost


@pytest.mark.parametrize("limit", ["call_timeout", "session_timeout"])
def test_a_limit(server: rpc.Server, limit: str) -> None:
    """Whoever set it wanted the end: nothing is lost."""
    options: Any = {limit: 0.2}
    with rpc.connect(server.host, server.port, **options) as remote:
        sleep = remote.get_function("testing.sleep")
        with pytest.raises((DeadlineError, rpc.RPCSessionTimeoutError)):
            sleep(60)
        assert remote.closed
        assert not remote.lost


def test_ctrl_c(server: rpc.Server) -> None:
    """The user ended it."""
    with rpc.connect(server.host, server.port) as remote:
        sleep = remote.get_function("testing.sleep")
        interrupt = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            sleep(60)
        interrupt.join()
        assert remote.closed
        assert not remote.lost


def test_a_close_by_another_thread(server: rpc.Server) -> None:
    """The call in flight fails, but that was us."""
    remote = rpc.connect(server.host, server.port)
    sleep = remote.get_function("testing.sleep")
    closing = threading.Timer(0.1, remote.close)
    closing.start()
    with pytest.raises(ConnectionLostError):
        sleep(60)
    closing.join()
    assert not remote.lost


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(struct.pack("<Qi", 4, 7) + bytes(8), id="another code"),
        pytest.param(struct.pack("<QiI", 8, 4, 5), id="values that are not there"),
        pytest.param(struct.pack("<Qi", 4, 1), id="shutdown"),
        pytest.param(b"", id="the end"),
    ],
)
def test_a_server_that_breaks_the_rules(answer: bytes) -> None:
    """Nonsense, and an end without a word, are both losses."""
    asking, answering = socket.socketpair()
    endpoint = Endpoint(SocketChannel(asking, "the server", 5.0, "call_timeout"))
    session = rpc.RPCSession(endpoint, ("the server", 1))
    with answering, session:
        answering.sendall(struct.pack("<Qiii", 12, 4, 1, 0))
        endpoint.init_server()
        answering.sendall(answer)
        answering.shutdown(socket.SHUT_WR)
        with pytest.raises((ConnectionLostError, RemoteProtocolError)):
            session.call(1, (), "a call")
        assert session.lost
