"""Accepting a client: hello, key, options; or a refusal. Never blocks on one peer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from ..errors import RemoteProtocolError
from ..protocol.codes import HandshakeReply
from ..protocol.handshake import ClientHello, HelloReader, encode_server_reply

if TYPE_CHECKING:
    import socket

REFUSAL = encode_server_reply(HandshakeReply.MISMATCH)
"""What a client is told whose key is not the one that this server goes by."""


class Greeting:
    """A client that has connected and whose words are not complete yet, or that has to wait.

    Args:
        connection: its socket; owned, and not blocking until `admit`.
        address: where it comes from.
        until: when its patience with us ends, on the monotonic clock.

    Attributes:
        hello: its first words, once they are complete.
        is_passed_over: whether somebody who came later has been served before it.
    """

    def __init__(self, connection: socket.socket, address: str, until: float) -> None:
        self.connection = connection
        self.address = address
        self.until = until
        self.hello: Optional[ClientHello] = None
        self.is_passed_over = False
        self._reader = HelloReader()
        connection.setblocking(False)

    @property
    def early(self) -> bytes:
        """What the client said behind its hello."""
        return bytes(self._reader.rest)

    def listen(self) -> bool:
        """Takes what has arrived; whether the client is still there.

        Raises:
            RemoteProtocolError: it is no client of this protocol.
        """
        try:
            received = self.connection.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not received:
            return False
        if self.hello is None:
            self.hello = self._reader.feed(received)
        else:
            self._reader.rest += received
            if len(self._reader.rest) > 4096:
                raise RemoteProtocolError("the client talks on before it was answered")
        return True

    def admit(self, key: str) -> bool:
        """Agrees; whether the client still was there to hear it."""
        reply = encode_server_reply(HandshakeReply.SUCCESS, key)
        try:
            is_there = self.connection.send(reply) == len(reply)  # the first that it is sent
            self.connection.setblocking(True)
        except OSError:
            is_there = False
        if not is_there:
            self.connection.close()
        return is_there
