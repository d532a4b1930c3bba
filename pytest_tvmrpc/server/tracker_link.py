"""The socket between a supervisor and its tracker. What is said on it is the registration's."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING, Callable, Optional, Tuple

from .. import network
from ..errors import RemoteProtocolError
from .dialling import Dialler
from .registration import Registration

if TYPE_CHECKING:
    import socket

    from .dialling import Loop

_READ = select.POLLIN
_WRITE = select.POLLOUT


class TrackerLink:
    """A connection to the tracker that is made again whenever it is lost, for ever.

    Args:
        address: the tracker's.
        registration: what to say; it also says how long to wait after a loss.
        loop: the supervisor.
        kick: takes the reason when the tracker orders the end of the session.
    """

    def __init__(
        self,
        address: Tuple[str, int],
        registration: Registration,
        loop: Loop,
        kick: Callable[[str], None],
    ) -> None:
        self.registration = registration
        self._name = network.format_address(*address)
        self._loop = loop
        self._kick = kick
        self._dialler = Dialler(address, loop, self._connected, self._lose)
        self._connection: Optional[socket.socket] = None
        self._unsent = b""
        self._retry_at = 0.0
        self._was_lost = False

    def tick(self, now: float) -> None:
        """Connects when it is time to; lets the registration say what is due."""
        if self._connection is not None:
            self._converse(lambda: self.registration.tick(now))
        elif self._dialler.is_busy:
            self._dialler.tick(now)
        elif now >= self._retry_at:
            self._dialler.start(now)

    def next_wakeup(self, now: float) -> float:
        """When `tick` has something to do, on the monotonic clock."""
        if self._connection is not None:
            pause = self.registration.next_wakeup(now)
            return now + (3600.0 if pause is None else pause)
        due = self._dialler.next_wakeup()
        return self._retry_at if due is None else due

    def occupied(self, client: str) -> None:
        """The client with our match key has come."""
        self._converse(lambda: self.registration.occupied(time.monotonic(), client))

    def offer(self) -> None:
        """The device is free again."""
        self._converse(lambda: self.registration.offer(time.monotonic()))

    def close(self) -> None:
        """Leaves the tracker, which drops our offer."""
        self._dialler.close()
        if self._connection is not None:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _connected(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop.watch(connection.fileno(), _READ, self._readable)
        self._converse(lambda: self.registration.connected(time.monotonic()))

    def _readable(self, events: int) -> None:
        connection = self._connection
        assert connection is not None
        if events & _WRITE and self._unsent:
            self._converse(lambda: b"")
        if not events & ~_WRITE or self._connection is None:
            return
        try:
            received = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        if not received:
            self._lose("it closed the connection")
            return
        was_registered = self.registration.registered
        self._converse(lambda: self.registration.received(received, time.monotonic()))
        reason = self.registration.take_kick()
        if reason is not None:
            self._kick(reason)
        if self.registration.registered and not was_registered:
            if self._was_lost:
                self._loop.report(f"registered again with the tracker {self._name}")
            self._was_lost = False
            self._dialler.remember()
            self._loop.say_ready()

    def _converse(self, say: Callable[[], bytes]) -> None:
        """Sends what the registration has to say, and what could not be sent before."""
        try:
            self._unsent += say()
            if self._connection is None or not self._unsent:
                return
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self._connection.send(self._unsent) :]
            self._loop.forget(self._connection.fileno())
            self._loop.watch(
                self._connection.fileno(), _READ | (_WRITE if self._unsent else 0), self._readable
            )
        except (OSError, RemoteProtocolError) as error:
            self._lose(str(error))

    def _lose(self, why: str) -> None:
        if not self._was_lost:
            self._was_lost = True
            self._loop.report(f"the tracker {self._name} is not there: {why}; trying again")
        self.close()
        self._unsent = b""
        now = time.monotonic()
        self._retry_at = now + self.registration.lost(now)
        self._loop.say_ready()


def make_link(
    address: Tuple[str, int],
    key: str,
    port: int,
    custom_addr: Optional[str],
    loop: Loop,
    kick: Callable[[str], None],
) -> TrackerLink:
    """A link whose match keys nobody can guess."""
    registration = Registration(key, port, custom_addr, entropy=os.urandom)
    return TrackerLink(address, registration, loop, kick)
