"""Letting clients in: hello, key, options; whose turn it is, or a refusal. Waits for nobody."""

from __future__ import annotations

import contextlib
import functools
import select
import time
from collections import deque
from typing import TYPE_CHECKING, Callable, Deque, List, Optional

from .. import network
from ..errors import RemoteProtocolError
from ..protocol.codes import HandshakeReply
from ..protocol.handshake import ClientHello, HelloReader, encode_server_reply

if TYPE_CHECKING:
    import socket

    from .dialling import Loop

MAX_GREETINGS = 64
"""Clients that have not said yet what they want; the oldest has to go when one more comes."""

MAX_WAITING = 64
"""Clients with the right key that wait for the device; others stay in the kernel's queue."""

_ACCEPT_PAUSE_S = 0.1
"""How long to wait for a descriptor to be free again."""

_FAIR_S = 0.05
"""What a client that means well has for its first words, however many others come."""

_READ = select.POLLIN

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


class WaitingClients:
    """The clients of a server that have no session yet.

    Args:
        listener: where they come in, owned; None for a server that waits at a proxy.
        loop: the supervisor.
        handshake_s: how long a client may take for its first words.
        fits: whether a client with this match key may have the device.
        has_come: called when there is one more that waits for the device.
        refuse: takes the socket of a client that may not have it, and what it is told.
    """

    def __init__(
        self,
        listener: Optional[socket.socket],
        loop: Loop,
        handshake_s: float,
        fits: Callable[[str], bool],
        has_come: Callable[[], object],
        refuse: Callable[[socket.socket, bytes], object],
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._handshake_s = handshake_s
        self._fits = fits
        self._has_come = has_come
        self._refuse = refuse
        self._greetings: List[Greeting] = []
        self._waiting: Deque[Greeting] = deque()
        self._is_open = False
        self._accepts_at: Optional[float] = None
        self._is_short = False
        if listener is not None:
            listener.setblocking(False)
            with contextlib.suppress(OSError):  # without it, the end of a client is seen later
                network.set_keepalive(listener)  # what is accepted inherits it

    @property
    def has_waiting(self) -> bool:
        """Whether somebody waits for the device."""
        return bool(self._waiting)

    def descriptors(self) -> List[int]:
        """What a process that is forked must not keep open, beside what is watched."""
        return [self._listener.fileno()] if self._listener is not None else []

    def open(self) -> None:
        """Lets clients in, if it does not already."""
        self._accepts_at = None
        if self._listener is not None and not self._is_open:
            self._is_open = True
            self._loop.watch(self._listener.fileno(), _READ, self._accept)

    def _shut(self) -> None:
        """Lets nobody in: no busy loop, as who wants in is still there."""
        if self._listener is not None and self._is_open:
            self._is_open = False
            self._loop.forget(self._listener.fileno())

    def tick(self, now: float) -> None:
        """Sends away those that take too long; lets clients in again after a pause."""
        if self._accepts_at is not None and now >= self._accepts_at:
            self.open()
        for greeting in [late for late in self._greetings if now >= late.until]:
            self._loop.report(f"{greeting.address} said nothing sensible in time")
            self._drop(greeting)

    def next_wakeup(self, now: float) -> float:
        """When `tick` has something to do, on the monotonic clock."""
        due = [greeting.until for greeting in self._greetings]
        if self._accepts_at is not None:
            due.append(self._accepts_at)
        return min(due, default=now + 3600.0)

    def take(self) -> Optional[Greeting]:
        """The client whose turn it is, which is the caller's from then on; None if nobody waits."""
        if not self._waiting:
            return None
        greeting = self._first()
        self._release(greeting)
        return greeting

    def dismiss(self) -> None:
        """Sends everybody away."""
        for greeting in [*self._waiting, *self._greetings]:
            self._drop(greeting)

    def close(self) -> None:
        """Lets nobody in any more; the listener is closed."""
        self._shut()
        if self._listener is not None:
            self._listener.close()

    def _accept(self, events: int) -> None:
        """Takes the next client; one at a time, as only that one is known to be there."""
        listener = self._listener
        assert listener is not None
        if len(self._waiting) >= MAX_WAITING or not self._has_room():
            self._shut()  # until one of them leaves or is served
            return
        try:
            connection, address = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # no descriptors are left, as a rule
            if not self._is_short:
                self._is_short = True  # one line, however long it lasts
                self._loop.report(f"no client can be accepted now: {error}")
            self._accepts_at = time.monotonic() + _ACCEPT_PAUSE_S
            self._shut()
            return
        self._is_short = False
        greeting = Greeting(
            connection,
            network.format_address(*address[:2]),
            time.monotonic() + self._handshake_s,
        )
        self._greetings.append(greeting)
        self._loop.watch(connection.fileno(), _READ, functools.partial(self._listen, greeting))

    def _has_room(self) -> bool:
        """Whether one more can be listened to; for it, the oldest is sent away."""
        if len(self._greetings) < MAX_GREETINGS:
            return True
        oldest = self._greetings[0]
        may_go_at = oldest.until - self._handshake_s + _FAIR_S
        if time.monotonic() < may_go_at:
            self._accepts_at = may_go_at
            return False
        self._listen(oldest, _READ)  # its words may be here, and not have been read yet
        if oldest in self._greetings:
            self._loop.report(
                f"{oldest.address} was sent away for others: it said nothing sensible yet"
            )
            self._drop(oldest)
        return True

    def _drop(self, greeting: Greeting) -> None:
        """No more to do with this client here; the socket is closed."""
        self._release(greeting)
        greeting.connection.close()

    def _release(self, greeting: Greeting) -> None:
        self._loop.forget(greeting.connection.fileno())
        for place in (self._greetings, self._waiting):
            with contextlib.suppress(ValueError):
                place.remove(greeting)
        self.open()

    def _listen(self, greeting: Greeting, events: int) -> None:
        try:
            is_there = greeting.listen()
        except RemoteProtocolError as error:
            self._loop.report(f"{greeting.address} was sent away: {error}")
            is_there = False
        if not is_there:
            self._drop(greeting)
            return
        hello = greeting.hello
        if hello is None or greeting in self._waiting:
            return
        if not self._fits(hello.match_key):
            self._loop.report(f"mismatch key from {greeting.address}: {hello.match_key[:80]!r}")
            self._release(greeting)
            self._refuse(greeting.connection, REFUSAL)
            return
        self._greetings.remove(greeting)
        self._waiting.append(greeting)
        self._has_come()

    def _first(self) -> Greeting:
        """Whose turn it is. One that has only said hello may not be there any more: once, the next
        one that has asked for its session goes first. TVM's clients ask when they are admitted.
        """
        first = self._waiting[0]
        if first.early or first.is_passed_over:
            return first
        first.is_passed_over = True
        return next((greeting for greeting in self._waiting if greeting.early), first)
