"""The last packet to a client, and the end of its connection, without waiting for it.

A client that does not read has its buffers full, and then a packet that is sent once is lost. And
who closes with something unread resets the connection, which drops what the client has not read.
"""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import time
from typing import TYPE_CHECKING, Callable, List

if TYPE_CHECKING:
    from .dialling import Loop

LIMIT_S = 10.0
"""How long a client may take to hear the last word, and to close."""

MOST = 64
"""Connections in this state; the oldest has to go when one more comes."""

_PARTS = 64
"""Parts of what a client still says that are passed over at once."""


class Ending:
    """One client's last packet.

    Args:
        connection: its socket; owned. No other process writes to it any more.
        packet: what is still to be sent to the client.
    """

    def __init__(self, connection: socket.socket, packet: bytes) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.until = time.monotonic() + LIMIT_S
        self._rest = packet
        self._has_shut = False
        self._hears = True

    @property
    def events(self) -> int:
        """What to wait for."""
        return (select.POLLIN if self._hears else 0) | (select.POLLOUT if self._rest else 0)

    def go_on(self) -> bool:
        """Says and hears what can be now; whether there is more to do."""
        connection = self.connection
        try:
            with contextlib.suppress(BlockingIOError):
                while self._rest:
                    self._rest = self._rest[connection.send(self._rest) :]
            if not (self._rest or self._has_shut):
                self._has_shut = True
                connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(BlockingIOError):
                for _ in range(_PARTS):
                    if not connection.recv(65536):
                        self._hears = False
                        break
        except OSError:  # it is gone
            return False
        return bool(self._rest) or self._hears


def end_at_once(connection: socket.socket, packet: bytes) -> None:
    """Says what can be said now, and closes."""
    Ending(connection, packet).go_on()
    connection.close()


class Endings:
    """Those of a server.

    Args:
        loop: the supervisor.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._all: List[Ending] = []

    def add(self, connection: socket.socket, packet: bytes) -> None:
        """A client has this to hear yet; its socket is owned, and was not watched."""
        ending = Ending(connection, packet)
        if not ending.go_on():
            connection.close()
            return
        if len(self._all) >= MOST:
            self._drop(self._all[0])
        self._all.append(ending)
        self._watch(ending)

    def tick(self, now: float) -> None:
        """Closes those that take too long."""
        for ending in [late for late in self._all if now >= late.until]:
            self._drop(ending)

    def next_wakeup(self, now: float) -> float:
        """When `tick` has something to do, on the monotonic clock."""
        return min((ending.until for ending in self._all), default=now + 3600.0)

    def close(self) -> None:
        """Closes all of them; may be called twice."""
        for ending in list(self._all):
            ending.go_on()
            self._drop(ending)

    def _watch(self, ending: Ending) -> None:
        happened: Callable[[int], None] = functools.partial(self._happened, ending)
        self._loop.watch(ending.connection.fileno(), ending.events, happened)

    def _happened(self, ending: Ending, events: int) -> None:
        if ending.go_on():
            self._loop.forget(ending.connection.fileno())
            self._watch(ending)
        else:
            self._drop(ending)

    def _drop(self, ending: Ending) -> None:
        self._all.remove(ending)
        self._loop.forget(ending.connection.fileno())
        ending.connection.close()
