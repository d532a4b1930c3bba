"""Peers of a proxy, written with bare sockets: what they send and what they get is all there is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Callable, Iterator, Optional, Tuple

import pytest

from pytest_tvmrpc.network import listen
from pytest_tvmrpc.proxy.service import ProxyService

SUCCESS, DUPLICATE, MISMATCH = 0xFF271, 0xFF272, 0xFF273


def hello(key: str) -> bytes:
    """The first words of either side."""
    encoded = key.encode()
    return struct.pack("<ii", 0xFF271, len(encoded)) + encoded


class Peer:
    """A server or a client at a proxy."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self.connection.recv(size - len(received))
            assert part, f"closed after {len(received)} of {size} bytes"
            received += part
        return bytes(received)

    def code(self) -> int:
        """The proxy's reply code."""
        return int(struct.unpack("<i", self.receive(4))[0])

    def partner(self) -> str:
        """The key of the partner that the proxy found."""
        assert self.code() == SUCCESS
        (length,) = struct.unpack("<i", self.receive(4))
        return self.receive(length).decode()

    def is_closed(self) -> bool:
        """Whether the other end closes, without another word; waits for it."""
        with contextlib.suppress(ConnectionResetError):
            return self.connection.recv(1) == b""
        return True

    def close(self) -> None:
        self.connection.close()


Address = Tuple[str, int]
MakePeer = Callable[..., Peer]


@pytest.fixture(name="dial")
def _dial(deadline_s: float) -> Iterator[MakePeer]:
    """``dial(address, "server:k")`` makes a peer that has said its key; closed with the test."""
    with contextlib.ExitStack() as stack:

        def make(address: Address, key: str = "") -> Peer:
            connection = socket.create_connection(address, deadline_s)
            made = Peer(stack.enter_context(connection))
            if key:
                made.send(hello(key))
            return made

        yield make


@contextlib.contextmanager
def running_service(tracker: Optional[Address] = None, **limits: float) -> Iterator[Address]:
    """A proxy in a thread, maybe with other limits than usual; its address."""
    listener = listen("127.0.0.1", 0)
    address: Address = listener.getsockname()
    loop = asyncio.new_event_loop()
    stopped = loop.create_future()

    async def run() -> None:
        service = ProxyService(address[1], 600, 600, tracker, **limits)
        service.start()
        acceptor = service.listen(listener)
        await stopped
        acceptor.close()
        await service.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stopped.set_result, None)
        thread.join()
        loop.close()
        listener.close()
