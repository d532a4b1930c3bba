"""The way to clients through a proxy: connect to it, wait for a partner, hand the socket over.

The proxy's tracker is the proxy's business; no byte of a session is read here.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Callable, Optional, Tuple

from .. import network
from ..errors import RemoteProtocolError
from ..protocol.codes import HandshakeReply
from ..protocol.handshake import (
    ClientHello,
    ReplyReader,
    encode_server_hello,
    parse_client_key,
)
from ..protocol.pause import Pause
from .dialling import Dialler

if TYPE_CHECKING:
    import socket

    from .dialling import Loop

_WAITED_S = 30.0
"""A proxy lets a server wait for minutes; one that sends it away sooner wants something else."""

_DUPLICATE_PAUSE_S = 10.0
"""Another server has our key: until somebody ends it, asking more often helps nobody."""


class ProxyLink:
    """Waits at a proxy whenever the device is free, for ever.

    Args:
        address: the proxy's.
        key: what kind of device this is; clients ask the proxy for it by this name.
        loop: the supervisor.
        paired: takes the socket and the client's words, once there is a client.
    """

    def __init__(
        self,
        address: Tuple[str, int],
        key: str,
        loop: Loop,
        paired: Callable[[socket.socket, ClientHello], None],
    ) -> None:
        self._name = network.format_address(*address)
        self._key = key
        self._loop = loop
        self._paired = paired
        self._dialler = Dialler(address, loop, self._connected, self._lose)
        self._connection: Optional[socket.socket] = None
        self._reader = ReplyReader()
        self._pause = Pause(os.urandom)
        self._retry_at: Optional[float] = 0.0
        self._complaint = ""
        self._is_refused = False
        self._waits_since = 0.0

    def tick(self, now: float) -> None:
        """Connects when it is time to."""
        if self._connection is None and self._retry_at is not None:
            if self._dialler.is_busy:
                self._dialler.tick(now)
            elif now >= self._retry_at:
                self._dialler.start(now)

    def next_wakeup(self, now: float) -> float:
        """When `tick` has something to do, on the monotonic clock."""
        due = self._dialler.next_wakeup()
        if due is not None:
            return due
        if self._connection is not None or self._retry_at is None:
            return now + 3600.0
        return self._retry_at

    def offer(self) -> None:
        """The device is free again."""
        self._retry_at = time.monotonic()

    def close(self) -> None:
        """Leaves the proxy."""
        self._retry_at = None
        self._dialler.close()
        if self._connection is not None:
            self._release().close()

    def _connected(self, connection: socket.socket) -> None:
        self._reader = ReplyReader()
        self._connection = connection
        self._waits_since = time.monotonic()
        hello = encode_server_hello(self._key)
        try:
            is_said = connection.send(hello) == len(hello)  # short, and the first: it fits
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not is_said:
            self._lose("it does not take the hello")
            return
        self._loop.watch(connection.fileno(), select.POLLIN, self._readable)
        if self._complaint and not self._is_refused:
            self._loop.report(f"waiting at the proxy {self._name} again")
            self._complaint = ""
        self._dialler.remember()
        self._loop.say_ready()

    def _readable(self, events: int) -> None:
        """Takes the proxy's answer, and not a byte more: what follows is the session's."""
        connection = self._connection
        assert connection is not None
        try:
            received = connection.recv(self._reader.needed)
            if not received:
                self._lose("it closed the connection")
                return
            self._reader.feed(received)
            if self._reader.needed == 0:
                self._answered()
        except BlockingIOError:
            return
        except (OSError, RemoteProtocolError) as error:
            self._lose(str(error))

    def _answered(self) -> None:
        reply = self._reader.reply
        if reply is HandshakeReply.DUPLICATE:
            self._is_refused = True
            self._lose(
                f"error: another server waits there with the key {self._key!r} already; "
                "give this one another --key, or end that one",
                self._pause.about(_DUPLICATE_PAUSE_S),
            )
        elif reply is HandshakeReply.MISMATCH:
            self._is_refused = time.monotonic() < self._waits_since + _WAITED_S
            self._lose(
                f"error: it refused this server, with the key {self._key[:80]!r}; its own output "
                "says why"
                if self._is_refused
                else ""  # nobody came for as long as the proxy waits
            )
        else:
            hello = parse_client_key(self._reader.text)
            self._pause.reset()
            self._complaint = ""
            self._is_refused = False
            self._retry_at = None
            self._paired(self._release(), hello)

    def _release(self) -> socket.socket:
        connection, self._connection = self._connection, None
        assert connection is not None
        self._loop.forget(connection.fileno())
        return connection

    def _lose(self, why: str, pause_s: Optional[float] = None) -> None:
        """Tries again later; says why if that is something new."""
        if why and why != self._complaint:
            self._loop.report(f"the proxy {self._name}: {why}; trying again")
            self._complaint = why
        if self._connection is None:
            self._is_refused = False
        elif time.monotonic() >= self._waits_since + _WAITED_S:
            self._pause.reset()
        self.close()
        self._retry_at = time.monotonic() + (
            self._pause.after_failure() if pause_s is None else pause_s
        )
        self._loop.say_ready()
