"""From an address to a session, or to an error that says what is at the address instead."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Any, Iterator, Optional

import pytest

from pytest_tvmrpc import rpc
from pytest_tvmrpc.errors import (
    ConnectError,
    ConnectionLostError,
    DeadlineError,
    DuplicateKeyError,
    HandshakeError,
    KeyMismatchError,
    RemoteError,
    RPCError,
)
from pytest_tvmrpc.network import listen

SUCCESS = struct.pack("<ii", 0xFF271, 7) + b"server:"


@contextlib.contextmanager
def impostor(answer: Optional[bytes], stays: bool = False) -> Iterator[int]:
    """Listens, answers whoever comes with these bytes, and closes unless it stays; its port."""
    done = threading.Event()
    with listen("127.0.0.1", 0) as listener:

        def serve() -> None:
            while not done.is_set():  # the client may try again, without words behind its hello
                with listener.accept()[0] as connection:
                    connection.recv(4096)
                    connection.sendall(answer or b"")
                    if stays:
                        done.wait(10)

        thread = threading.Thread(target=serve)
        if answer is not None:
            thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            if answer is not None:
                socket.create_connection(listener.getsockname()).close()  # ends the last accept
                thread.join()


def closed_port() -> int:
    """A port at which nobody listens."""
    with listen("127.0.0.1", 0) as listener:
        port: int = listener.getsockname()[1]
    return port


def test_a_session(server: rpc.Server) -> None:
    """An address is all it takes."""
    with rpc.connect("localhost", server.port, "", 0) as remote:
        assert remote.peer == ("localhost", server.port)
        assert remote.connect_s > 0
        assert remote.get_function("rpc.test.addone")(10) == 11
    with rpc.connect(server.host, server.port, session_constructor_args=["rpc.LocalSession"]) as r:
        assert r.get_function("rpc.test.addone")(10) == 11


def test_nobody_there() -> None:
    """The address is named, with each that was tried."""
    port = closed_port()
    with pytest.raises(ConnectError, match=f"127.0.0.1:{port}.*refused") as caught:
        rpc.connect("127.0.0.1", port)
    assert isinstance(caught.value, (ConnectionLostError, OSError))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_addresses_to_listen_on(host: str) -> None:
    """They are no addresses to connect to; the message says what to write instead."""
    with pytest.raises(ConnectError, match=r"to listen on, not to connect to.*127\.0\.0\.1"):
        rpc.connect(host, 9090)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_are_none(port: int) -> None:
    """Are refused before anything is sent."""
    with pytest.raises(ValueError, match="is no port to connect to"):
        rpc.connect("127.0.0.1", port)


@pytest.mark.parametrize("answer", [None, b"", b"\x71\xf2", SUCCESS[:10]], ids=repr)
def test_a_listener_that_does_not_answer(answer: Optional[bytes]) -> None:
    """The wait has an end that the error names, at whatever byte it happens."""
    started = time.monotonic()
    with impostor(answer, stays=True) as port, pytest.raises(
        DeadlineError,
        match=rf"RPC server 127\.0\.0\.1:{port}.* took longer than 0\.2 s; set handshake_timeout",
    ):
        rpc.connect("127.0.0.1", port, handshake_timeout=0.2)
    assert 0.1 < time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not TVM RPC server"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "is not TVM RPC server"),
        (struct.pack("<i", 0x2F271), "is not TVM RPC server"),
        (struct.pack("<ii", 0xFF271, -1), "is not TVM RPC server"),
        (struct.pack("<ii", 0xFF271, 1 << 30), "is not TVM RPC server"),
        (b"", "closed the connection in the handshake"),
        (b"\x71\xf2", "closed the connection in the handshake"),
        (SUCCESS[:12], "closed the connection in the handshake"),
    ],
    ids=["http", "ssh", "tracker", "length -1", "length 2^30", "nothing", "half", "half a key"],
)
def test_who_is_no_server(answer: bytes, message: str) -> None:
    """Says what was found there, at once."""
    with impostor(answer) as port, pytest.raises(HandshakeError, match=message) as caught:
        rpc.connect("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(caught.value)


def test_a_tracker_is_no_server() -> None:
    """A common mix-up of ports."""
    with rpc.Tracker(port=0, silent=True) as tracker, pytest.raises(RPCError):
        rpc.connect("127.0.0.1", tracker.port, handshake_timeout=2)


@pytest.mark.parametrize(
    ("code", "error"), [(0xFF273, KeyMismatchError), (0xFF272, DuplicateKeyError)]
)
def test_refusals(code: int, error: Any) -> None:
    """Each has its own error, with the key that was refused."""
    with impostor(struct.pack("<i", code)) as port, pytest.raises(error, match="client:board"):
        rpc.connect("127.0.0.1", port, "board")


@pytest.mark.parametrize("answer", [b"", bytes(7), struct.pack("<Qi", 4, 1)], ids=len)
def test_a_server_that_leaves_before_the_session(answer: bytes) -> None:
    """A lost connection, with no socket left open."""
    with impostor(SUCCESS + answer) as port, pytest.raises(ConnectionLostError):
        rpc.connect("127.0.0.1", port)


def test_a_session_that_cannot_be_constructed(server: rpc.Server) -> None:
    """The server's refusal is raised here, and it goes on serving."""
    with pytest.raises(RemoteError, match=r"rpc\.NoSuchSession"):
        rpc.connect(server.host, server.port, session_constructor_args=["rpc.NoSuchSession"])
    with pytest.raises(TypeError, match="list or tuple"):
        rpc.connect(server.host, server.port, session_constructor_args="text")
    with rpc.connect(server.host, server.port) as remote:
        assert remote.get_function("rpc.test.addone")(10) == 11


def test_a_server_that_serves_somebody_else(server: rpc.Server) -> None:
    """While the device is in use, a client waits as long as it said, and no longer."""
    with rpc.connect(server.host, server.port), pytest.raises(
        DeadlineError, match=r"somebody else.*handshake_timeout"
    ):
        rpc.connect(server.host, server.port, handshake_timeout=0.1)
    with rpc.connect(server.host, server.port) as remote:
        assert remote.get_function("rpc.test.addone")(10) == 11


def test_a_connection_that_is_reset() -> None:
    """Not a word of the kernel's alone: what was tried, and what it may mean."""
    with listen("127.0.0.1", 0) as listener:

        def reset() -> None:
            for _ in range(2):  # the client tries again, without words behind its hello
                connection = listener.accept()[0]
                connection.recv(1)
                option = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
                connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        with pytest.raises(ConnectionLostError, match="broke the connection in the handshake"):
            rpc.connect("127.0.0.1", listener.getsockname()[1])
        thread.join()


def test_an_address_of_the_name_that_answers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tracker and server are reached at the next one, long before the limit of the connection."""
    with contextlib.ExitStack() as stack:
        tracker = stack.enter_context(rpc.Tracker(port=0, silent=True))
        address = (tracker.host, tracker.port)
        server = stack.enter_context(
            rpc.Server(
                port=0, tracker_addr=address, key="swallowed", custom_addr="board", silent=True
            )
        )
        for port in (server.port, tracker.port):
            full = stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
            for _ in range(3):  # the kernel ignores who comes when the queue is full
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())

        def getaddrinfo(name: Any, port: int, **options: Any) -> Any:
            hosts = ("127.0.0.2", "127.0.0.1")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with rpc.connect_tracker("farm", tracker.port, timeout=5) as farm, farm.request(
            "swallowed", connect_timeout=5
        ) as remote:
            assert remote.peer == ("board", server.port)
            assert remote.get_function("rpc.test.addone")(1) == 2
