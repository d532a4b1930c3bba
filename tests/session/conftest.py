"""Both ends of a conversation in one process, over a socket pair."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Optional, Tuple

import pytest

from pytest_tvmrpc.runtime.function import PackedFunc
from pytest_tvmrpc.session.channel import SocketChannel
from pytest_tvmrpc.session.endpoint import Endpoint
from pytest_tvmrpc.session.environment import Environment
from pytest_tvmrpc.session.local import LocalSession
from pytest_tvmrpc.session.serving import Server, StreamBrokenError

if TYPE_CHECKING:
    from pathlib import Path

INIT_SERVER = bytes.fromhex("1500000000000000 02000000 0500000000000000 302e382e30 00000000")
FRAME = struct.Struct("<Qi")


class Conversation:
    """An answering end in a thread, and the socket to it.

    Args:
        folder: the session's directory.
        limit_s: how long anything here may take.

    Attributes:
        socket: the asking side's.
        session: what does the work.
        progress: the byte that a supervisor watches.
        ended_by: what `Server.serve` raised, once it did; None for a clean end.
    """

    def __init__(self, folder: Path, limit_s: float) -> None:
        self.environment = Environment(str(folder))
        self.session = LocalSession(self.environment)
        self.socket, self._served = socket.socketpair()
        self.socket.settimeout(limit_s)
        self.progress = memoryview(bytearray(2))
        self.ended_by: Optional[BaseException] = None
        self._limit_s = limit_s
        self._endpoint: Optional[Endpoint] = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        channel = SocketChannel(self._served, "the client")
        try:
            Server(channel, self.session, self.progress).serve()
        except (StreamBrokenError, OSError) as error:
            self.ended_by = error
        finally:
            channel.close()

    def endpoint(self, timeout_s: Optional[float] = None) -> Endpoint:
        """The asking end, with the session opened; from here on it owns the socket."""
        self.socket.settimeout(None)
        channel = SocketChannel(
            self.socket, "the server", timeout_s or self._limit_s, "call_timeout"
        )
        self._endpoint = Endpoint(channel)
        self._endpoint.init_server()
        return self._endpoint

    def add(self, name: str, function: Callable[..., Any]) -> None:
        """One more function of the session."""
        self.environment.functions[name] = PackedFunc(function, name)

    def answer(self) -> Tuple[int, bytes]:
        """Code and body of the next packet from the answering end."""
        nbytes, code = FRAME.unpack(self._exactly(FRAME.size))
        return code, self._exactly(nbytes - 4)

    def _exactly(self, nbytes: int) -> bytes:
        received = b""
        while len(received) < nbytes:
            part = self.socket.recv(nbytes - len(received))
            assert part, f"closed after {len(received)} of {nbytes} bytes"
            received += part
        return received

    def join(self) -> None:
        """Waits until the answering end has stopped."""
        self._thread.join(self._limit_s)
        assert not self._thread.is_alive()

    def close(self) -> None:
        """Ends the conversation from the asking side."""
        if self._endpoint is not None:
            self._endpoint.close()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.join()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """The session's directory."""
    folder = tmp_path / "session"
    folder.mkdir()
    return folder


@pytest.fixture(name="conversation")
def _conversation(folder: Path, deadline_s: float) -> Iterator[Conversation]:
    """An answering end that waits for its first packet."""
    conversation = Conversation(folder, deadline_s)
    yield conversation
    conversation.close()


@pytest.fixture(name="raw")
def _raw(conversation: Conversation) -> Conversation:
    """A conversation in packets of the test's own, opened."""
    conversation.socket.sendall(INIT_SERVER)
    assert conversation.answer()[0] == 4
    return conversation


@pytest.fixture(name="endpoint")
def _endpoint(conversation: Conversation) -> Endpoint:
    """The asking end of an open session."""
    return conversation.endpoint()


@pytest.fixture(name="packet", scope="session")
def _packet() -> Callable[[int, bytes], bytes]:
    """``packet(code, body)`` with its length in front."""
    return lambda code, body=b"": FRAME.pack(4 + len(body), code) + body


@pytest.fixture(name="words", scope="session")
def _words() -> Dict[str, bytes]:
    """Whole packets: recorded from TVM 0.27, or made like them."""
    return {
        "init": INIT_SERVER,
        "shutdown": FRAME.pack(4, 1),
        "lookup": bytes.fromhex(
            "2300000000000000 09000000 01000000 08000000 0f00000000000000"
            "7270632e746573742e6164646f6e65"
        ),
    }
