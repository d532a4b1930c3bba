"""The least that Python and the kernel can do: one request, one answer, over one socket.

No protocol: a request says how many bytes follow and how many are wanted back. The server half
runs in a child process (``python -m harness.bench.bare``) and needs the standard library only.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING

from .child import child_program, end_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .peers import Address

REQUEST = struct.Struct("<QQ")
FIRST_READ = 1 << 16


class BareClient:
    """One connection to a bare server."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> BareClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def exchange(self, request: bytes, answer: memoryview) -> None:
        """Sends a prepared request, receives an answer that fills `answer`."""
        self._socket.sendall(request)
        got = self._socket.recv_into(answer)
        while got < len(answer):
            got += self._socket.recv_into(answer[got:])

    def send(self, payload: memoryview, answer: memoryview) -> None:
        """Sends something large without copying it, and waits for a short answer."""
        self._socket.sendall(REQUEST.pack(len(payload), len(answer)))
        self._socket.sendall(payload)
        self._socket.recv_into(answer)


def request(up: int, down: int) -> bytes:
    """A request of `up` bytes in all that wants `down` bytes."""
    return REQUEST.pack(up - REQUEST.size, down) + bytes(up - REQUEST.size)


def serve(listener: socket.socket) -> None:
    """Answers every connection, each in a thread, for ever."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    block = memoryview(bytearray(FIRST_READ))
    with connection, contextlib.suppress(ConnectionError):
        while True:
            got = connection.recv_into(block, FIRST_READ)
            if not got:
                return
            up, down = REQUEST.unpack_from(block)
            need = REQUEST.size + max(up, down)
            if need > len(block):
                larger = bytearray(need)
                larger[:got] = block[:got]
                block = memoryview(larger)
            while got < REQUEST.size + up:
                count = connection.recv_into(block[got : REQUEST.size + up])
                if not count:
                    return
                got += count
            connection.sendall(block[:down])


@contextlib.contextmanager
def server() -> Iterator[Address]:
    """A bare server in a child process."""
    with child_program("harness.bench.bare") as program:
        line = program.read_line()
        yield ("127.0.0.1", int(line))


def main() -> None:
    """Serves on a free port of the loopback, and says which."""
    end_with_parent()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        serve(listener)


if __name__ == "__main__":
    main()
