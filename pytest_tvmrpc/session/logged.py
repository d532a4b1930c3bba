"""A channel whose packets are logged, one line each. For looking at a conversation, not for speed.

``>`` stands before what is sent, ``<`` before what is received, ``!`` before the end.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Optional, Sequence

from ..protocol.requests import code_name
from .channel import Buffer, SocketChannel

if TYPE_CHECKING:
    import socket

_FRAME = struct.Struct("<Qi")


class LoggedChannel(SocketChannel):
    """A `SocketChannel` that tells ``pytest_tvmrpc.session`` of each packet, at DEBUG.

    The arguments are those of `SocketChannel`.
    """

    def __init__(
        self,
        connection: socket.socket,
        peer: str,
        timeout_s: Optional[float] = None,
        timeout_argument: str = "",
    ) -> None:
        import logging  # 17 ms, and a board never logs packets

        super().__init__(connection, peer, timeout_s, timeout_argument)
        log = logging.getLogger("pytest_tvmrpc.session")
        self._sent = _Packets(log, f"> {peer}")
        self._received = _Packets(log, f"< {peer}")
        self._log = log
        send_once, recv_into = self.send_once, self.recv_into

        def send(buffer: Buffer) -> int:
            sent = send_once(buffer)
            self._sent.take(memoryview(buffer)[:sent])
            return sent

        def receive(target: memoryview) -> int:
            received = recv_into(target)
            self._received.take(target[:received])
            return received

        self.send_once, self.recv_into = send, receive

    def send(self, buffers: Sequence[Buffer]) -> int:
        """Sends all of them, one by one."""
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            while len(view):
                view = view[self.send_once(view) :]
        return sum(map(len, buffers))

    def send_rest(self, packet: bytes, sent: int) -> None:
        """Sends what `send_once` did not take."""
        self.send([memoryview(packet)[sent:]])

    def send_now(self, buffer: Buffer) -> int:
        """Sends what the kernel takes without waiting."""
        sent = super().send_now(buffer)
        self._sent.take(memoryview(buffer)[:sent])
        return sent

    def receive_now(self, target: memoryview) -> Optional[int]:
        """Receives what is there."""
        received = super().receive_now(target)
        self._received.take(target[: received or 0])
        return received

    def close(self) -> None:
        """Closes the socket; may be called twice."""
        if self.connection.fileno() >= 0:
            self._log.debug("! %s: the connection is closed", self.peer)
        super().close()


class _Packets:
    """One direction of a conversation: finds the packets in whatever parts it comes in."""

    def __init__(self, log: Any, name: str) -> None:
        self._log = log
        self._name = name
        self._head = b""
        self._left = 0

    def take(self, part: memoryview) -> None:
        """The next bytes."""
        while len(part):
            if self._left:
                passed = min(self._left, len(part))
                self._left -= passed
                part = part[passed:]
                continue
            wanted = _FRAME.size - len(self._head)
            self._head += part[:wanted]
            part = part[wanted:]
            if self._head[:8] == bytes(8):  # a packet of no bytes
                self._head = self._head[8:]
            if len(self._head) == _FRAME.size:
                nbytes, code = _FRAME.unpack(self._head)
                self._log.debug("%s %s, %d bytes", self._name, code_name(code), nbytes)
                self._left = nbytes - 4
                self._head = b""
