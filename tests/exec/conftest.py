"""Peers of the programs that are not ours: a tracker as TVM's is, and strangers."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from typing import Any, Callable, ContextManager, Iterator, List

import pytest

MAGIC = bytes.fromhex("71f20200")


class Scripted:
    """Listens on loopback and has a function talk to each who comes, one at a time, in a thread."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: List[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="scripted peer")

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            with connection, contextlib.suppress(OSError):
                self._talk(connection)
            self._open.remove(connection)


def _answer_as_tvm(connection: socket.socket) -> None:
    """Ping, summary, and a queue in which everybody waits; what it does not know ends it."""
    if connection.recv(4) != MAGIC:
        return
    connection.sendall(MAGIC)
    with connection.makefile("rb") as stream:
        while True:
            (length,) = struct.unpack("<i", stream.read(4) or bytes(4))
            code = json.loads(stream.read(length) or b"[0]")[0]
            server = {"key": "server:board", "addr": ["10.0.0.5", 9090]}
            replies = {
                1: 0,
                6: [
                    0,
                    {"queue_info": {"board": {"free": 0, "pending": 1}}, "server_info": [server]},
                ],
            }
            if code in replies:
                body = json.dumps(replies[code]).encode()
                connection.sendall(struct.pack("<i", len(body)) + body)
            elif code != 4:
                return


@pytest.fixture
def scripted() -> Callable[[Callable[[socket.socket], None]], ContextManager[Any]]:
    """``with scripted(talk) as peer:`` has ``talk(connection)`` answer at ``peer.port``."""
    return Scripted


@pytest.fixture
def tvm_tracker() -> Iterator[Scripted]:
    """A tracker that knows TVM's messages only; its one server is in use."""
    with Scripted(_answer_as_tvm) as peer:
        yield peer
